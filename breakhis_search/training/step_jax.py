"""The training step under JAX: one compiled function from state to state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from breakhis_search.training.steps import Loss, Step


class JaxStep(Step):
    """Loss, gradient and update as one XLA program.

    Between :meth:`begin` and :meth:`end` the values are held here, where each step gives its memory
    to the next one; Keras' variables have them only after :meth:`end`.
    """

    def __init__(self, model: Any, optimizer: Any, loss: Loss) -> None:
        super().__init__(model, optimizer, loss)
        rate = optimizer.learning_rate
        self._rate_at = next(i for i, v in enumerate(optimizer.variables) if v is rate)
        self._step = jax.jit(self._take, donate_argnums=0)
        self._answer = jax.jit(self._infer)
        self._state: Any = None

    def begin(self) -> None:
        """Take the values of the variables; copies, because a step overwrites them."""
        groups = self._variables()
        self._state = [[jnp.array(v.value, copy=True) for v in group] for group in groups]

    def take(self, inputs: Any, targets: Any, weights: Any, rate: Any) -> Any:
        """Train on one batch; return its loss, which may not be there yet."""
        self._state, loss = self._step(self._state, inputs, targets, weights, np.float32(rate))
        return loss

    def end(self) -> None:
        """Give the variables their values."""
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._state = None

    def answer(self, inputs: Any) -> Any:
        """Return logits in inference, float32 [b, K]."""
        model = self._model
        values = [[v.value for v in g] for g in (model.trainable_variables, self._fixed())]
        return self._answer(values, inputs)

    def _fixed(self) -> Any:
        return self._model.non_trainable_variables

    def _variables(self) -> tuple[Any, Any, Any]:
        return self._model.trainable_variables, self._fixed(), self._optimizer.variables

    def _take(self, state: Any, inputs: Any, targets: Any, weights: Any, rate: Any) -> Any:
        trainable, fixed, momenta = state

        def loss_of(trainable: Any) -> Any:
            logits, after, extra = self._model.stateless_call(
                trainable, fixed, inputs, training=True, return_losses=True
            )
            # Keras divides by the batch, not by the sum of the weights.
            loss = jnp.mean(self._loss(targets, logits) * weights)
            return loss + sum(extra), after

        (loss, after), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        momenta = [rate if i == self._rate_at else value for i, value in enumerate(momenta)]
        trainable, momenta = self._optimizer.stateless_apply(momenta, gradients, trainable)
        return [list(trainable), list(after), list(momenta)], loss

    def _infer(self, values: Any, inputs: Any) -> Any:
        trainable, fixed = values
        logits, _ = self._model.stateless_call(trainable, fixed, inputs, training=False)
        return logits
