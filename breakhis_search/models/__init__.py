"""Model builders: the registry, the search space they declare, weights, heads and trainability.

``space`` and ``architectures`` import no Keras; ``heads``, ``small_cnn``, ``transfer``, ``foreign``
and ``trainability`` need it and are imported where a model is built.
"""
