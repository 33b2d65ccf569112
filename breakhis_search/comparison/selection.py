"""Which finalist is selected: the smallest of those that cannot be told from the best.

*Tied with the best* is a finalist that is not significantly worse than the best (one-sided
patient-swap test, Holm over the finalists: S. Holm, Scand J Stat 6, 1979) *and* whose score is
within a margin of it. Both are asked for: few patients make almost any gap insignificant, and many
make a negligible one significant. The best was picked by its score, which makes the p-values of the
others a little too small; that can only shorten the list of the tied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from breakhis_search.comparison.difference import (
    describe_p,
    difference_interval,
)
from breakhis_search.comparison.permutation import TOLERANCE, patient_swap_test
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective, score
from breakhis_search.evaluation.pairwise import FloatArray

COLUMNS: dict[str, str] = {
    "trial": "int64",
    "name": "str",
    "score": "float64",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "p": "float64",
    "p_holm": "float64",
    "tied": "bool",
    "parameters": "int64",
    "selected": "bool",
}
"""Columns of :attr:`Selection.table` and their types."""


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained to the end on all folds and seeds.

    Attributes:
        trial: Number of the trial it comes from; unique among the finalists.
        name: What it is, such as its architecture.
        table: Its out-of-fold predictions of all seeds.
        parameters: Weights of the model, trainable or not.
    """

    trial: int
    name: str
    table: pd.DataFrame
    parameters: int

    def __str__(self) -> str:
        """Return such as ``trial 3 (mobilenet, 3.2 M parameters)``."""
        return f"trial {self.trial} ({self.name}, {describe_parameters(self.parameters)})"


@dataclass(frozen=True)
class Selection:
    """The selected finalist, and why.

    Attributes:
        selected: Trial number of the selected finalist.
        best: Trial number of the highest score.
        tied: Trial numbers tied with the best, itself among them, best first.
        table: One row per finalist, best first: ``trial``, ``name``, ``score``, ``difference`` to
            the best (≤ 0) with its interval ``low`` and ``high`` (NaN with too few patients), ``p``
            that the best is no better than it, ``p_holm`` (NaN for the best), ``tied``,
            ``parameters``, ``selected``.
        explanation: The choice in words.
    """

    selected: int
    best: int
    tied: tuple[int, ...]
    table: pd.DataFrame
    explanation: str


def select(
    finalists: Sequence[Finalist],
    objective: Objective,
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
    permutations: int = 10_000,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Selection:
    """Return the finalist with the fewest parameters among those tied with the best.

    Args:
        finalists: One or more, predicted on the same images.
        objective: ``auroc`` or ``balanced_accuracy``: pooled out-of-fold, mean over seeds.
        margin: How far below the best score a tied finalist may be.
        alpha: Level of the test after Holm's correction.
        permutations: Of each patient-swap test.
        resamples: Of each interval.
        level: Nominal coverage of the intervals.
        seed: Of both.

    Raises:
        ComparisonError: There is no finalist, a trial number repeats, or the images differ.
    """
    _check(finalists)
    scores = {finalist.trial: score(finalist.table, objective) for finalist in finalists}
    ranked = sorted(finalists, key=lambda f: (-scores[f.trial], f.parameters, f.trial))
    rows = [
        {"trial": finalist.trial, "name": finalist.name, "score": scores[finalist.trial]}
        | {"parameters": finalist.parameters}
        | _against_best(finalist, ranked[0], objective, permutations, resamples, level, seed)
        for finalist in ranked
    ]
    table = pd.DataFrame(rows)
    table["p_holm"] = adjust_by_holm(table["p"].to_numpy(np.float64))
    within = table["difference"] >= -margin - TOLERANCE
    table["tied"] = within & ~(table["p_holm"] <= alpha)
    selected = table[table["tied"]].sort_values(["parameters", "trial"])["trial"].iloc[0]
    table["selected"] = table["trial"] == selected
    table = table[list(COLUMNS)].astype(COLUMNS)
    return Selection(
        selected=int(selected),
        best=ranked[0].trial,
        tied=tuple(table["trial"][table["tied"]].tolist()),
        table=table,
        explanation=_explain(table, ranked, objective, margin),
    )


def adjust_by_holm(p_values: FloatArray) -> FloatArray:
    """Return the p-values corrected for their number; NaN is no test.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979. (A library for it would take a second to import.)

    >>> adjust_by_holm(np.array([np.nan, 0.01, 0.04])).tolist()
    [nan, 0.02, 0.04]
    """
    adjusted = p_values.copy()
    tested = np.flatnonzero(~np.isnan(p_values))
    ascending = tested[np.argsort(p_values[tested], kind="stable")]
    left = len(tested) - np.arange(len(tested))  # hypotheses that are not rejected before
    adjusted[ascending] = np.minimum(1.0, np.maximum.accumulate(left * p_values[ascending]))
    return adjusted


def describe_parameters(count: int) -> str:
    """Return a number of parameters as people read it.

    >>> describe_parameters(3_228_864), describe_parameters(19_400), describe_parameters(950)
    ('3.2 M parameters', '19 k parameters', '950 parameters')
    """
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} M parameters"
    return f"{count / 1e3:.0f} k parameters" if count >= 1_000 else f"{count} parameters"


def _check(finalists: Sequence[Finalist]) -> None:
    if not finalists:
        raise ComparisonError("there is no finalist to select from", expected="at least one")
    trials = [finalist.trial for finalist in finalists]
    repeated = sorted({trial for trial in trials if trials.count(trial) > 1})
    if repeated:
        raise ComparisonError(
            "a trial number stands for several finalists",
            expected="each finalist under a trial number of its own",
            received=f"trial {repeated[0]} {trials.count(repeated[0])} times",
            remedy="give the finalists of one study, all seeds of one in one table",
        )


def _against_best(
    finalist: Finalist,
    best: Finalist,
    objective: Objective,
    permutations: int,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, float | None]:
    """Return difference, interval and p of a finalist; the best is not tested against itself."""
    if finalist is best:
        return {"difference": 0.0, "low": None, "high": None, "p": None}
    test = patient_swap_test(
        best.table, finalist.table, objective, permutations=permutations, seed=seed
    )
    interval = difference_interval(
        finalist.table, best.table, objective, resamples=resamples, level=level, seed=seed
    )
    return {
        "difference": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "p": test.p_greater,
    }


def _explain(
    table: pd.DataFrame, ranked: Sequence[Finalist], objective: Objective, margin: float
) -> str:
    """Return the choice in words, for a reader who knows no statistics."""
    title = OBJECTIVE_TITLES[objective]
    best, tied = ranked[0], table[table["tied"]]
    selected = ranked[int(table["selected"].to_numpy().argmax())]
    reached = f"{title} {table['score'].iloc[0]:.3f}"
    if len(table) == 1:
        return f"{selected} is selected: it is the only finalist ({reached}), so none was compared."
    if len(tied) == 1:
        why = f"it has the highest score ({reached}), and no other finalist is tied with it"
    elif selected is best:
        why = (
            f"it has the highest score ({reached}) and the fewest parameters"
            f" of the {len(tied)} tied with the best"
        )
    else:
        row = table[table["selected"]].iloc[0]
        why = (
            f"it is tied with the best, {best}, and has the fewest parameters of the {len(tied)}"
            f" that are. Its {title} is {row['score']:.3f} against {table['score'].iloc[0]:.3f}:"
            f" a gap within the margin of {margin:g} that may be chance"
            f" ({describe_p(row['p_holm'])})"
        )
    others = "; ".join(_why_not_tied(row, margin) for _, row in table[~table["tied"]].iterrows())
    return f"{selected} is selected: {why}." + (f" Not tied: {others}." if others else "")


def _why_not_tied(row: pd.Series[float], margin: float) -> str:
    """Return in words which of the two conditions a finalist misses."""
    gap = f"trial {row['trial']}, {-row['difference']:.3f} below the best"
    if row["difference"] < -margin - TOLERANCE:
        chance = describe_p(row["p_holm"])
        return (
            f"{gap}, more than the margin of {margin:g} (not shown to be worse, one-sided {chance})"
        )
    return (
        f"{gap}, which is too consistent among patients to be chance ({describe_p(row['p_holm'])})"
    )
