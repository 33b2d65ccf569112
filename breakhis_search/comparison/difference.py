"""How much better one model is than another: an interval of the difference, and words for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from breakhis_search.comparison.alignment import Aligned, align
from breakhis_search.comparison.permutation import SwapTest
from breakhis_search.comparison.resampling import (
    patients_by_class,
    score_of_draws,
    too_few_patients,
)
from breakhis_search.evaluation.interval_bounds import expanded_percentile_bounds
from breakhis_search.evaluation.intervals import MAX_UNDEFINED_SHARE
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective
from breakhis_search.evaluation.pairwise import FloatArray
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS, draw_weights


@dataclass(frozen=True)
class DifferenceInterval:
    """The difference of the scores of A and B, with an interval where patients allow one.

    Attributes:
        difference: Score of A minus score of B, in [-1, 1].
        low: Lower end, or ``None``.
        high: Upper end, or ``None``.
        level: Nominal coverage.
        resamples: Draws of patients behind it; 0 without an interval.
        reason: Why there is no interval, in words; ``None`` where there is one.
    """

    difference: float
    low: float | None
    high: float | None
    level: float
    resamples: int
    reason: str | None

    def __str__(self) -> str:
        """Return such as ``+0.021 [+0.004, +0.040]``."""
        if self.low is None or self.high is None:
            return f"{self.difference:+.3f} (no interval: {self.reason})"
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def in_words(self) -> str:
        """Return the interval alone, such as ``95 % interval [+0.004, +0.040]``."""
        if self.low is None or self.high is None:
            return f"no interval: {self.reason}"
        return f"{self.level:.0%} interval [{self.low:+.3f}, {self.high:+.3f}]".replace("%", " %")


def difference_interval(
    a: pd.DataFrame,
    b: pd.DataFrame,
    objective: Objective,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> DifferenceInterval:
    """Return score of A minus score of B with its paired bootstrap interval over patients.

    Accessions are drawn with replacement within each class, the same ones for both models and all
    seeds; the ends are those of :func:`.interval_bounds.expanded_percentile_bounds`.

    Args:
        a: Predictions table of A, with any number of seeds.
        b: Predictions table of B for the same images.
        objective: ``auroc`` or ``balanced_accuracy``.
        resamples: Draws.
        level: Nominal coverage, in (0, 1).
        seed: Of the draws.

    Raises:
        ComparisonError: The tables are not of the same images.
    """
    return interval_of_first_two(
        align([a, b]), objective, resamples=resamples, level=level, seed=seed
    )


def interval_of_first_two(
    aligned: Aligned, objective: Objective, *, resamples: int, level: float, seed: int
) -> DifferenceInterval:
    """Return :func:`difference_interval` of two models that are aligned already."""
    everyone = np.ones((1, len(aligned.accessions)))
    point = float(_differences(aligned, objective, everyone)[0])
    reason = too_few_patients(aligned, MIN_PATIENTS)
    if reason is not None:
        return DifferenceInterval(point, None, None, level, 0, reason)
    weights = draw_weights(aligned.stratum, resamples, np.random.default_rng(seed))
    differences = _differences(aligned, objective, weights)
    undefined = np.isnan(differences)
    if undefined.mean() > MAX_UNDEFINED_SHARE:
        reason = f"undefined in {undefined.sum():,} of {resamples:,} draws of patients"
        return DifferenceInterval(point, None, None, level, 0, reason)
    scarcest = min(patients_by_class(aligned).values())
    low, high = expanded_percentile_bounds(differences[~undefined], scarcest, level)
    return DifferenceInterval(point, low, high, level, resamples, None)


def verdict(
    test: SwapTest,
    interval: DifferenceInterval,
    objective: Objective,
    *,
    names: tuple[str, str] = ("A", "B"),
    alpha: float = 0.05,
) -> str:
    """Return in one sentence which of two models is better, if that can be said.

    Args:
        test: :func:`patient_swap_test` of the two; its two-sided p decides.
        interval: :func:`difference_interval` of the two, in the same order.
        objective: What was compared.
        names: What to call them, in the same order.
        alpha: Level of the test.
    """
    title, chance = OBJECTIVE_TITLES[objective], describe_p(test.p_two_sided)
    if test.p_two_sided > alpha:
        of = f"{names[0]} minus {names[1]}"
        return f"no difference can be shown: {title} {interval} ({of}), {chance}"
    if test.difference < 0:
        names, interval = (names[1], names[0]), _turned(interval)
    text = f"{names[0]} is better than {names[1]}: {title} {interval}, {chance}"
    if interval.low is not None and interval.low <= 0:
        return text + "; the interval reaches zero, so the evidence is thin"
    return text


def describe_p(p: float) -> str:
    """Return a p-value as it is printed.

    >>> describe_p(0.0128), describe_p(0.0001)
    ('p = 0.013', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _differences(aligned: Aligned, objective: Objective, weights: FloatArray) -> FloatArray:
    """Return score of the first minus score of the second model on every draw, float64 [B]."""
    a, b = (score_of_draws(aligned, model, objective) for model in (0, 1))
    return np.asarray(a(weights) - b(weights))


def _turned(interval: DifferenceInterval) -> DifferenceInterval:
    """Return the interval of B minus A."""
    return DifferenceInterval(
        difference=-interval.difference,
        low=None if interval.high is None else -interval.high,
        high=None if interval.low is None else -interval.low,
        level=interval.level,
        resamples=interval.resamples,
        reason=interval.reason,
    )
