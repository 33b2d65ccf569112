"""One phase of training a fold: on images, or for a frozen backbone on its stored features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from breakhis_search.data.feature_store import StoredFeatures
from breakhis_search.data.views import PLAIN, ViewPolicy
from breakhis_search.models.heads import dropout_rate_of
from breakhis_search.training.compilation import CompiledPhase
from breakhis_search.training.head_batch import HeadBatch, HeadSettings
from breakhis_search.training.plan import TrainingPlan

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Snapshot:
    """Values that variables of a model had at some time.

    Attributes:
        variables: Of the model.
        values: What each held.
    """

    variables: Sequence[Any]
    values: Sequence[npt.NDArray[np.generic]]

    @classmethod
    def take(cls, variables: Iterable[Any]) -> Snapshot:
        """Return what variables hold now."""
        kept = tuple(variables)
        return cls(kept, tuple(np.array(variable) for variable in kept))

    def put(self) -> None:
        """Give the variables their values back."""
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)


@dataclass(frozen=True)
class HeadStep:
    """A step of a head on stored features, to be taken by who runs the training.

    Attributes:
        phase: Whose head.
        features: float32 [b, d].
        targets: One-hot, float32 [b, K].
        weights: Of each image in the loss, float32 [b].
        rate: Learning rate.
    """

    phase: HeadPhase
    features: FloatArray
    targets: FloatArray
    weights: FloatArray
    rate: float


class Phase(Protocol):
    """Trains a model that it was given on rows of the images it was given."""

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> float | HeadStep:
        """Train on one batch and return its loss, or the step that others may take part in.

        Args:
            rows: Row positions of the images, int64 [b].
            targets: One-hot, float32 [b, K].
            weights: Of each image in the loss, float32 [b].
            rate: Learning rate.
        """

    def snapshot(self) -> Snapshot:
        """Return what has been learnt so far, as values for variables of the model."""

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the given rows, float32 [n, K]."""


class ImagePhase:
    """Trains through the whole model, augmenting on the device.

    Args:
        compiled: Its compiled step.
        core: The model.
        images: All images, uint8 [n, h, w, 3].
        batch_size: Images per step of a prediction.
    """

    def __init__(
        self,
        compiled: CompiledPhase,
        core: Any,
        images: npt.NDArray[np.uint8],
        batch_size: int,
    ) -> None:
        self._compiled = compiled
        self._core = core
        self._images = images
        self._batch_size = batch_size

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> float:
        """Train on one batch of augmented images."""
        return self._compiled.step(self._images[rows], targets, weights, learning_rate=rate)

    def snapshot(self) -> Snapshot:
        """Return all weights of the model."""
        return Snapshot.take(self._core.weights)

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        return predict_logits(self._compiled.model, self._images, rows, self._batch_size)


class HeadPhase:
    """Trains the head alone on stored features: a few matrix products a step, nothing compiled.

    It takes the head's weights from the model at its start and keeps its own from then on.

    Args:
        core: A transfer model of ours, images → logits.
        features: Of all images.
        policy: The views that are stored of each image.
        strength: Of augmentation.
        settings: How the head is trained.
        seed: Of dropout and of the views that are drawn.

    Attributes:
        batch: The batch that the head is part of, with others where trainings go side by side.
        place: Of the head in the batch.
    """

    def __init__(
        self,
        core: Any,
        features: StoredFeatures,
        policy: ViewPolicy,
        *,
        strength: float,
        settings: HeadSettings,
        seed: int,
    ) -> None:
        layers = [layer for layer in core.layers if layer.name in ("head_dense", "logits")]
        self._variables = [variable for layer in layers for variable in layer.weights]
        self._features = features
        self._policy = policy
        self._strength = strength
        self._rng = np.random.default_rng([seed, 1])
        units = layers[0].units if len(layers) > 1 else 0
        self.size = (features.width, units, layers[-1].units)
        self.batch = HeadBatch(
            [settings],
            features=features.width,
            units=units,
            classes=layers[-1].units,
            seeds=[seed],
        )
        self.batch.set_weights(0, [np.array(variable) for variable in self._variables])
        self.place = 0

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> HeadStep:
        """Return the step on one stored view of each image."""
        views = self._policy.draw(self._strength, len(rows), self._rng)
        every = np.ones(len(rows), np.float32) if weights is None else weights
        return HeadStep(self, self._features.take(rows, views), targets, every, rate)

    def snapshot(self) -> Snapshot:
        """Return the head's weights."""
        return Snapshot(self._variables, self.batch.weights_of(self.place))

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        heads = slice(self.place, self.place + 1)
        answers: FloatArray = self.batch.logits(self._features.take(rows, PLAIN), heads)[0]
        return answers


def head_settings(core: Any, plan: TrainingPlan) -> HeadSettings:
    """Return how the head of a model is trained."""
    return HeadSettings(
        dropout_rate=dropout_rate_of(core),
        weight_decay=plan.weight_decay,
        label_smoothing=plan.label_smoothing,
        focal_gamma=plan.focal_gamma if plan.sampling_strategy == "focal" else None,
    )


def predict_logits(
    model: Any, images: npt.NDArray[np.uint8], rows: IntArray, batch_size: int
) -> FloatArray:
    """Return the logits of the given rows, float32 [n, K]; full batches only reach the device.

    Args:
        model: A Keras model, RGB 0–255 → logits.
        images: uint8 [n, h, w, 3].
        rows: Rows to score.
        batch_size: Images per step; the last batch is padded, because a partial one retraces.
    """
    padded = np.resize(rows, -(-len(rows) // batch_size) * batch_size)
    parts = [
        np.asarray(model.predict_on_batch(images[padded[i : i + batch_size]]), dtype=np.float32)
        for i in range(0, len(padded), batch_size)
    ]
    return np.concatenate(parts)[: len(rows)]
