"""What a fold is trained on, and what is known of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from breakhis_search.data.draws import TrainingRows
from breakhis_search.training.snapshots import Snapshot

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    Attributes:
        epoch: From 0, counted through both phases.
        phase: ``head`` (frozen backbone), ``fine_tune`` or ``all``.
        loss: Mean training loss (with weights and smoothing).
        val_loss: Negative log-likelihood on the validation images; ``None`` without them.
        score: The fold's score by the study's objective; ``None`` without validation images or
            where the fold does not define it.
        learning_rate: Rate of the last step.
    """

    epoch: int
    phase: str
    loss: float
    val_loss: float | None
    score: float | None
    learning_rate: float


@dataclass(frozen=True)
class FoldResult:
    """A trained fold.

    Attributes:
        history: One report per epoch.
        best_epoch: Number of epochs (from 1) after which the kept weights were reached.
        logits: Of the validation images with the kept weights, float32 [n, K]; ``None`` without.
        kept: The kept weights.
    """

    history: tuple[EpochReport, ...]
    best_epoch: int
    logits: FloatArray | None
    kept: Snapshot


@dataclass(frozen=True)
class TrainingData:
    """What a fold trains and validates on.

    Attributes:
        images: All images, uint8 [n, h, w, 3].
        train: Rows of ``images`` to train on; ``rows`` describes the same images.
        rows: Labels, types and groups of the training images.
        validation: Rows of ``images`` to validate on; empty for a refit.
        validation_y: Their class indices, int64.
        n_classes: K.
    """

    images: npt.NDArray[np.uint8]
    train: IntArray
    rows: TrainingRows
    validation: IntArray
    validation_y: IntArray
    n_classes: int
