"""One phase of training a fold: on images, or for a frozen backbone on its stored features."""

from __future__ import annotations

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


class Phase(Protocol):
    """Trains a model that it was given on rows of the images it was given."""

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> float:
        """Train on one batch and return its loss.

        Args:
            rows: Row positions of the images, int64 [b].
            targets: One-hot, float32 [b, K].
            weights: Of each image in the loss, float32 [b].
            rate: Learning rate.
        """

    def end_epoch(self) -> None:
        """Bring what was learnt into the model."""

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the given rows, float32 [n, K]."""


class ImagePhase:
    """Trains through the whole model, augmenting on the device.

    Args:
        compiled: Its compiled step.
        images: All images, uint8 [n, h, w, 3].
        batch_size: Images per step of a prediction.
    """

    def __init__(
        self, compiled: CompiledPhase, images: npt.NDArray[np.uint8], batch_size: int
    ) -> None:
        self._compiled = compiled
        self._images = images
        self._batch_size = batch_size

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> float:
        """Train on one batch of augmented images."""
        return self._compiled.step(self._images[rows], targets, weights, learning_rate=rate)

    def end_epoch(self) -> None:
        """Do nothing: the model itself is trained."""

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        return predict_logits(self._compiled.model, self._images, rows, self._batch_size)


class HeadPhase:
    """Trains the head alone on stored features: a few matrix products a step, nothing compiled.

    Args:
        core: A transfer model of ours, images → logits; its head is trained, the rest is frozen.
        features: Of all images.
        policy: The views that are stored of each image.
        plan: How the head is trained.
        seed: Of dropout and of the views that are drawn.
    """

    def __init__(
        self,
        core: Any,
        features: StoredFeatures,
        policy: ViewPolicy,
        plan: TrainingPlan,
        *,
        seed: int,
    ) -> None:
        self._layers = [layer for layer in core.layers if layer.name in ("head_dense", "logits")]
        self._features = features
        self._policy = policy
        self._strength = plan.augmentation_strength
        self._rng = np.random.default_rng([seed, 1])
        self._head = HeadBatch(
            [head_settings(core, plan)],
            features=features.width,
            units=self._layers[0].units if len(self._layers) > 1 else 0,
            classes=self._layers[-1].units,
            seeds=[seed],
        )
        self._head.set_weights(0, [w for layer in self._layers for w in layer.get_weights()])

    def step(
        self, rows: IntArray, targets: FloatArray, weights: FloatArray | None, *, rate: float
    ) -> float:
        """Train on one stored view of each image."""
        views = self._policy.draw(self._strength, len(rows), self._rng)
        features = self._features.take(rows, views)
        every = np.ones(len(rows), np.float32) if weights is None else weights
        losses = self._head.step(
            features[None], targets[None], every[None], np.array([rate], np.float32)
        )
        return float(losses[0])

    def end_epoch(self) -> None:
        """Put the head's weights into the model."""
        weights = iter(self._head.weights_of(0))
        for layer in self._layers:
            layer.set_weights([next(weights), next(weights)])

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        answers: FloatArray = self._head.logits(self._features.take(rows, PLAIN))[0]
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
