"""What a model scores when other patients are drawn: its objective as a function of the draw.

A draw is a row of weights: how often each accession counts. The objective follows from sums by
accession alone, so that thousands of draws are a few matrix products.
:func:`.resampled_metrics.resampled_metrics` has every metric; here it is one, of many models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from breakhis_search.comparison.alignment import Aligned
from breakhis_search.evaluation.metrics import Objective
from breakhis_search.evaluation.pairwise import FloatArray, PairwiseWins, pairwise_wins


class ScoreOfDraws(Protocol):
    """What one model scores, as a function of how often each accession counts."""

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return the objective of every draw.

        Args:
            weights: float [B, P].

        Returns:
            float64 [B]; NaN where fewer than two classes are drawn.
        """


@dataclass(frozen=True)
class AurocOfDraws:
    """AUROC: the mean over the classes that a draw holds, each against the rest.

    Attributes:
        rankings: One per ranked class: *malignant* alone, or all classes.
    """

    rankings: tuple[PairwiseWins, ...]

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return the AUROC of every draw, as :class:`ScoreOfDraws` says."""
        return _mean_of_known(np.stack([ranking.auroc(weights) for ranking in self.rankings]))


@dataclass(frozen=True)
class RecallOfDraws:
    """Balanced accuracy: the mean recall of the classes that a draw holds.

    Attributes:
        right: Images of each accession and class that are recognised, float64 [P, K].
        images: Images of each accession and class, float64 [P, K].
    """

    right: FloatArray
    images: FloatArray

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return the balanced accuracy of every draw, as :class:`ScoreOfDraws` says."""
        drawn = weights @ self.images
        nothing = np.full(drawn.shape, np.nan)
        recalls = np.divide(weights @ self.right, drawn, out=nothing, where=drawn > 0)
        values = _mean_of_known(recalls.T)
        values[(drawn > 0).sum(axis=1) < 2] = np.nan
        return values


def score_of_draws(aligned: Aligned, model: int, objective: Objective) -> ScoreOfDraws:
    """Return the objective of one of the aligned models as a function of the draw.

    With several seeds it is the mean over them.
    """
    if objective == "balanced_accuracy":
        return _recall_of_draws(aligned, model)
    classes = len(aligned.class_names)
    ranked = range(1 if classes == 2 else 0, classes)
    return AurocOfDraws(tuple(_ranking(aligned, model, index) for index in ranked))


def patients_by_class(aligned: Aligned) -> dict[str, int]:
    """Return the number of accessions that hold each class, of the classes that occur."""
    counts = (aligned.images > 0).sum(axis=0)
    return {
        name: int(count)
        for name, count in zip(aligned.class_names, counts, strict=True)
        if count > 0
    }


def too_few_patients(aligned: Aligned, least: int) -> str | None:
    """Return in words which classes have fewer than ``least`` patients, or ``None``."""
    counts = patients_by_class(aligned)
    scarce = [f"{count} {name}" for name, count in counts.items() if count < least]
    if not scarce:
        return None
    return f"too few patients: {', '.join(scarce)}; {least} of each class are needed"


def _ranking(aligned: Aligned, model: int, index: int) -> PairwiseWins:
    """Return the wins of one class over the rest, a mean over the seeds of a model."""
    by_seed = [
        pairwise_wins(
            aligned.y_true == index, scores[:, index], aligned.patient, len(aligned.accessions)
        )
        for scores in aligned.probabilities[model]
    ]
    wins = np.mean([ranking.wins for ranking in by_seed], axis=0)
    return PairwiseWins(np.asarray(wins), by_seed[0].positives, by_seed[0].negatives)


def _recall_of_draws(aligned: Aligned, model: int) -> RecallOfDraws:
    predicted = aligned.probabilities[model].argmax(axis=2)
    share_right = (predicted == aligned.y_true).mean(axis=0)
    right = np.zeros_like(aligned.images)
    np.add.at(right, (aligned.patient, aligned.y_true), share_right)
    return RecallOfDraws(right, aligned.images)


def _mean_of_known(values: FloatArray) -> FloatArray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
