"""The training step under TensorFlow: traced once, called without waiting for its answer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from breakhis_search.training.steps import Loss, Step


class TensorFlowStep(Step):
    """Loss, gradient and update as one graph; variables stay where Keras keeps them.

    Steps are not compiled with XLA: it has no kernel for the projective transform that rotates and
    zooms, and on a CPU its convolutions are several times slower than oneDNN's (docs/speed.md).
    """

    def __init__(self, model: Any, optimizer: Any, loss: Loss) -> None:
        super().__init__(model, optimizer, loss)
        self._step = tf.function(self._take)
        self._answer = tf.function(lambda inputs: model(inputs, training=False))

    def begin(self) -> None:
        """Do nothing: the step works on the variables themselves."""

    def take(self, inputs: Any, targets: Any, weights: Any, rate: Any) -> Any:
        """Train on one batch; return its loss, which may not be there yet."""
        convert = tf.convert_to_tensor  # a NumPy array as argument would be a new trace each time
        return self._step(convert(inputs), convert(targets), convert(weights), convert(rate))

    def end(self) -> None:
        """Do nothing: the variables hold what was learnt."""

    def answer(self, inputs: Any) -> Any:
        """Return logits in inference, float32 [b, K]."""
        return self._answer(tf.convert_to_tensor(inputs))

    def _take(self, inputs: Any, targets: Any, weights: Any, rate: Any) -> Any:
        model, optimizer = self._model, self._optimizer
        optimizer.learning_rate.assign(rate)
        with tf.GradientTape() as tape:
            losses = self._loss(targets, model(inputs, training=True))
            # Keras divides by the batch, not by the sum of the weights.
            loss = tf.reduce_mean(losses * weights)
            total = tf.add_n([loss, *model.losses])
            scaled = optimizer.scale_loss(total)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return total
