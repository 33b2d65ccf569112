"""What a compiled training step is, whatever the backend. The backends' own are beside this.

Keras' ``train_on_batch`` waits for every loss and, under JAX, carries all state from and to its
variables for every batch; on a GPU that costs more than many a step. Only what differs between the
backends is written out for each of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Loss = Callable[[Any, Any], Any]
"""(targets, logits) → one loss per image, float32 [b]."""


@dataclass(frozen=True)
class EpochSteps:
    """The steps of an epoch, apart from the inputs.

    Attributes:
        rows: Rows of the images of every step, int64 [steps, b].
        targets: One-hot, float32 [steps, b, K].
        weights: Of each image in the loss, float32 [steps, b].
        rates: Learning rates, float32 [steps].
    """

    rows: IntArray
    targets: FloatArray
    weights: FloatArray
    rates: FloatArray


class Step(ABC):
    """Trains a model batch by batch, between :meth:`begin` and :meth:`end`.

    Args:
        model: Inputs → logits.
        optimizer: Built for the model's trainable variables.
        loss: Loss per image.
    """

    def __init__(self, model: Any, optimizer: Any, loss: Loss) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss

    @abstractmethod
    def begin(self) -> None:
        """Begin some steps with the values that the variables hold now."""

    @abstractmethod
    def take(self, inputs: Any, targets: Any, weights: Any, rate: Any) -> Any:
        """Train on one batch.

        Args:
            inputs: Of the model, [b, …].
            targets: float32 [b, K], rows sum to 1.
            weights: Of each image in the loss, float32 [b].
            rate: Learning rate.

        Returns:
            The loss before the step, a scalar on the device; reading it waits for the step.
        """

    @abstractmethod
    def end(self) -> None:
        """End: the variables hold what was learnt."""

    @abstractmethod
    def answer(self, inputs: Any) -> Any:
        """Return the logits of a batch in inference, float32 [b, K], on the device."""


def build_step(model: Any, optimizer: Any, loss: Loss) -> Step:
    """Return the step of the backend in use.

    Args:
        model: Inputs → logits.
        optimizer: Built for the model's trainable variables.
        loss: Loss per image.
    """
    if keras.backend.backend() == "jax":
        from breakhis_search.training.step_jax import JaxStep

        return JaxStep(model, optimizer, loss)
    from breakhis_search.training.step_tensorflow import TensorFlowStep

    return TensorFlowStep(model, optimizer, loss)
