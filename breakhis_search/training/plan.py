"""The hyperparameters that steer training, read once from the values of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingPlan:
    """How a model is trained, apart from its architecture.

    Attributes:
        learning_rate: Peak rate of the head (or of the whole model when nothing is pretrained).
        weight_decay: Decoupled decay of AdamW.
        label_smoothing: Share of the target spread over all classes, [0, 1).
        augmentation_strength: [0, 1], see :mod:`breakhis_search.data.augmentation`.
        sampling_strategy: One of :data:`breakhis_search.data.sampling.STRATEGIES`, or
            ``module:function`` of the user's own.
        class_weighting: Only for ``class_weights``.
        focal_gamma: Only for ``focal``.
        trainable: Part of the backbone that is fine-tuned; ``None`` without a backbone.
        backbone_learning_rate: Peak rate of the fine-tuning phase.
        stain: One of :data:`breakhis_search.models.space.STAINS`: what images are brought to
            before the model sees them.
    """

    learning_rate: float
    weight_decay: float
    label_smoothing: float
    augmentation_strength: float
    sampling_strategy: str
    class_weighting: str | None = None
    focal_gamma: float | None = None
    trainable: str | None = None
    backbone_learning_rate: float | None = None
    stain: str = "none"

    @property
    def fine_tunes(self) -> bool:
        """Whether a second phase trains part of the backbone at its own rate."""
        return self.trainable not in (None, "frozen")


def read_plan(values: Mapping[str, Any]) -> TrainingPlan:
    """Return the plan that hyperparameter values (``group/name`` → value) describe."""
    return TrainingPlan(
        learning_rate=float(values["optimizer/learning_rate"]),
        weight_decay=float(values["optimizer/weight_decay"]),
        label_smoothing=float(values["optimizer/label_smoothing"]),
        augmentation_strength=float(values["augmentation/strength"]),
        sampling_strategy=str(values["sampling/strategy"]),
        class_weighting=values.get("sampling/class_weighting"),
        focal_gamma=values.get("sampling/focal_gamma"),
        trainable=values.get("transfer/trainable"),
        backbone_learning_rate=values.get("optimizer/backbone_learning_rate"),
        stain=str(values["preprocessing/stain"]),
    )
