"""Which layers of a model learn in which phase. Needs Keras.

Layers are found by name among all leaves of a model, so the model may be wrapped into another one,
reloaded from a file, or have its backbone flattened into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from keras import layers

from breakhis_search.models.architectures import ARCHITECTURES, Backbone
from breakhis_search.models.heads import FEATURES_SUFFIX

Part = Literal["head", "frozen", "last_block", "last_third", "whole"]


def set_trainable(model: Any, part: Part) -> int:
    """Let one part of a model learn and return how many parameters now do.

    The head always learns. Of a pretrained backbone ``head`` and ``frozen`` open nothing,
    ``last_block`` the layers listed for it in ``models.architectures``, ``last_third`` the last
    third of the layers that can learn, ``whole`` all of them. Its batch normalisations never learn:
    this is what keeps them in inference mode. A model without a pretrained backbone learns wholly.

    Call it before compiling: an optimizer built earlier holds the former variables.
    """
    # A container that is not trainable hides its trainable leaves: open all, then close leaves.
    model.trainable = True
    leaves = list(_leaves(model))
    seam, backbone = _find_backbone(leaves)
    if backbone is not None:
        before_head = leaves[:seam]
        opened = _opened(before_head, part, backbone)
        for leaf in before_head:
            leaf.trainable = leaf in opened
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def _leaves(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer


def _find_backbone(leaves: list[Any]) -> tuple[int, Backbone | None]:
    """Index of the features layer and the backbone before it; (0, None) if none is pretrained."""
    for index, leaf in enumerate(leaves):
        architecture = ARCHITECTURES.get(leaf.name.removesuffix(FEATURES_SUFFIX))
        if leaf.name.endswith(FEATURES_SUFFIX) and architecture is not None:
            return index, architecture.backbone
    return 0, None


def _opened(before_head: list[Any], part: Part, backbone: Backbone) -> list[Any]:
    can_learn = [leaf for leaf in before_head if _can_learn(leaf)]
    if part == "whole":
        return can_learn
    if part == "last_third":
        return can_learn[-math.ceil(len(can_learn) / 3) :]
    if part == "last_block":
        return [leaf for leaf in can_learn if leaf.name.startswith(backbone.last_block)]
    return []


def _can_learn(leaf: Any) -> bool:
    statistics = (layers.BatchNormalization, layers.Normalization)
    return bool(leaf.weights) and not isinstance(leaf, statistics)
