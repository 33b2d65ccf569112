"""How much of the best score of a search is luck: bias-corrected selection by bootstrap.

The best of many scores is partly the best because chance favoured it. The remedy repeats the
choice: draw patients with replacement, choose the best candidate on those drawn, and look at what
it scores on the patients who were not. The mean over many draws is what the *chosen* candidate may
be expected to score on new patients. It needs no training, only the out-of-fold predictions of all
candidates (I. Tsamardinos, E. Greasidou, G. Borboudakis, "Bootstrapping the out-of-sample
predictions for efficient and accurate cross-validation", Machine Learning 107, 2018: BBC-CV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from breakhis_search.comparison.alignment import Aligned, align
from breakhis_search.comparison.resampling import ScoreOfDraws, score_of_draws, too_few_patients
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import Objective
from breakhis_search.evaluation.pairwise import FloatArray
from breakhis_search.evaluation.resampled_metrics import draw_weights

MIN_PATIENTS_FOR_OPTIMISM = 2
"""Of each class: one to choose by and one to look at.

In simulations the mean of the correction was right from here on, though one correction from so few
patients is rough (docs/statistics.md).
"""

_ROUNDS = 200
"""Batches of draws before giving up on finding enough that leave every class on both sides."""


@dataclass(frozen=True)
class Optimism:
    """What the best score of a search is worth on new patients.

    Attributes:
        raw_best: The highest score among the candidates, in [0, 1].
        corrected: What the candidate chosen in this way may be expected to score; ``None`` if
            patients are too few.
        optimism: ``raw_best`` minus ``corrected``, or ``None``.
        candidates: How many the best was chosen from.
        resamples: Draws of patients behind ``corrected``; 0 where none was needed or possible.
        reason: Why there is no estimate, or none was needed, in words; else ``None``.
    """

    raw_best: float
    corrected: float | None
    optimism: float | None
    candidates: int
    resamples: int
    reason: str | None

    def __str__(self) -> str:
        """Return the correction in one sentence."""
        if self.corrected is None or self.optimism is None:
            return f"{self.raw_best:.3f} (luck of the choice not estimated: {self.reason})"
        if self.resamples == 0:
            return f"{self.raw_best:.3f} ({self.reason})"
        if self.optimism <= 0:
            return (
                f"{self.raw_best:.3f}, the best of {self.candidates} (no luck of the choice is to"
                " be seen on these patients)"
            )
        return (
            f"{self.raw_best:.3f}, the best of {self.candidates}; about {self.corrected:.3f}"
            f" without the luck of having been chosen, which is worth {self.optimism:.3f}. Each"
            " trial's epoch was chosen on the same patients, which still flatters both"
        )


def best_of_n_optimism(
    tables: Sequence[pd.DataFrame], objective: Objective, *, resamples: int = 1000, seed: int = 0
) -> Optimism:
    """Return the best score among the candidates, corrected for having been chosen.

    Accessions are drawn within each class. A draw that leaves a class without a patient inside or
    outside is drawn again.

    Args:
        tables: Out-of-fold predictions of every candidate, all of the same images.
        objective: ``auroc`` or ``balanced_accuracy``: what the best was chosen by.
        resamples: Draws.
        seed: Of the draws.

    Raises:
        ComparisonError: There is no candidate, or the tables are not of the same images.
    """
    if not tables:
        raise ComparisonError("there is no candidate to choose from", expected="at least one table")
    return optimism_of(align(tables), objective, resamples=resamples, seed=seed)


def optimism_of(aligned: Aligned, objective: Objective, *, resamples: int, seed: int) -> Optimism:
    """Return :func:`best_of_n_optimism` of candidates that are aligned already."""
    candidates = len(aligned.probabilities)
    models = [score_of_draws(aligned, index, objective) for index in range(candidates)]
    raw_best = float(_scores(models, np.ones((1, len(aligned.accessions)))).max())
    if candidates == 1:
        return Optimism(raw_best, raw_best, 0.0, 1, 0, "the only candidate: nothing was chosen")
    reason = too_few_patients(aligned, MIN_PATIENTS_FOR_OPTIMISM)
    weights = None if reason else _draws(aligned, resamples, np.random.default_rng(seed))
    if weights is None:
        reason = reason or "too few patients: hardly a draw leaves every class on both sides"
        return Optimism(raw_best, None, None, candidates, 0, reason)
    chosen = _scores(models, weights).argmax(axis=0)
    unseen = _scores(models, (weights == 0).astype(np.float64))
    corrected = float(unseen[chosen, np.arange(resamples)].mean())
    return Optimism(raw_best, corrected, raw_best - corrected, candidates, resamples, None)


def _scores(models: Sequence[ScoreOfDraws], weights: FloatArray) -> FloatArray:
    """Return what every candidate scores on every draw, float64 [N, B]."""
    return np.stack([model(weights) for model in models])


def _draws(aligned: Aligned, resamples: int, rng: np.random.Generator) -> FloatArray | None:
    """Return draws that leave every class on both sides, float64 [B, P]; ``None`` if too rare."""
    images = aligned.images[:, aligned.images.any(axis=0)]
    kept: list[FloatArray] = []
    for _ in range(_ROUNDS):
        weights = draw_weights(aligned.stratum, resamples, rng)
        complete = (weights @ images > 0).all(axis=1) & ((weights == 0) @ images > 0).all(axis=1)
        kept.append(weights[complete])
        if sum(map(len, kept)) >= resamples:
            return np.concatenate(kept)[:resamples]
    return None
