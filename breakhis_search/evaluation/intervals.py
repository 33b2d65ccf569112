"""Between which values a metric may lie, were the patients others: an interval for every metric.

Patients are drawn, not images: images of one patient are alike, and an interval over images would
be several times too narrow. Four methods share the work, each where a simulation found it to cover
the truth best (``docs/statistics.md`` has the table, ``benchmarks/interval_coverage.py`` makes it):

========================  ==========================================================================
``wilson``                shares of patients (accuracy and recall at the patient levels): the score
                          interval of E. B. Wilson, J. Am. Stat. Assoc. 22, 1927
``wilson_mean``           balanced accuracy at the patient levels, a mean of such shares: their
                          Wilson intervals squared and added (R. G. Newcombe, Statistics in Medicine
                          17, 1998, method 10; G. Y. Zou, A. Donner, ibid. 27, 2008)
``bootstrap_logit``       metrics of images, and Spanhol's recognition rate: Student's t times the
                          standard deviation over draws of accessions, on the logit scale, where
                          they are less skewed and cannot leave their bounds
``bootstrap_percentile``  everything else: quantiles over the draws, further out than the level asks
                          for (T. Hesterberg, The American Statistician 69(4), 2015, section 5.2)
========================  ==========================================================================

Both bootstrap methods make up for few patients: a bootstrap's variance is (n - 1) / n of what it
should be, and a spread known from n patients asks for Student's t. A class with fewer than five
patients gives no interval to a metric that rests on it; a mean over all images or patients rests on
every class that occurs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from breakhis_search.evaluation.interval_bounds import (
    expanded_percentile_bounds,
    logit_bounds,
    wilson_bounds,
    wilson_mean_bounds,
)
from breakhis_search.evaluation.metrics import RECOGNITION_RATE, compute_metrics
from breakhis_search.evaluation.pairwise import FloatArray
from breakhis_search.evaluation.predictions import is_binary, tables_by_seed
from breakhis_search.evaluation.resampled_metrics import (
    MIN_PATIENTS,
    draw_weights,
    resampled_metrics,
    strata_of,
)
from breakhis_search.evaluation.samples import LEVELS, Level, decisions_of, patients_by_class

Method = Literal["wilson", "wilson_mean", "bootstrap_logit", "bootstrap_percentile"]

MAX_UNDEFINED_SHARE = 0.05
"""A metric that has no value in a larger share of the draws gets no interval: it would only tell of
the draws that suit it."""

_ROUNDING = 1e-12
_ERRORS = ("nll", "brier")
"""Of which less is better, and which have no upper bound in common."""

_POOLED = ("accuracy", RECOGNITION_RATE, *_ERRORS)
"""Means over all rows: defined without any particular class."""


@dataclass(frozen=True)
class Interval:
    """Where a metric may lie.

    Attributes:
        low: Lower end.
        high: Upper end.
        n: The patients it rests on: all of them for a mean over all images or patients, else those
            of the smallest class that the metric needs.
        method: See the module.
    """

    low: float
    high: float
    n: int
    method: Method

    def __str__(self) -> str:
        """Return such as ``[0.701, 0.890]``."""
        return f"[{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Intervals:
    """The intervals of the metrics of a table, and why some have none.

    Attributes:
        level: The share of the truths that they are meant to cover, such as 0.95.
        values: The metrics of the table.
        known: Interval by metric name.
        reasons: Reason in words, for each metric that has a value but no interval.
    """

    level: float
    values: Mapping[str, float]
    known: Mapping[str, Interval]
    reasons: Mapping[str, str]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per metric, in the order of the metrics.

        Returns:
            Columns ``metric``, ``value``, ``low``, ``high``, ``n`` (patients) and ``method``, the
            last four empty where there is no interval; ``reason`` then says why.
        """
        rows = []
        for name, value in self.values.items():
            interval = self.known.get(name)
            ends = (interval.low, interval.high) if interval else (np.nan, np.nan)
            basis = (interval.n, interval.method) if interval else (pd.NA, "")
            rows.append((name, value, *ends, *basis, self.reasons.get(name, "")))
        columns = ["metric", "value", "low", "high", "n", "method", "reason"]
        return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})


def bootstrap_intervals(
    table: pd.DataFrame, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Intervals:
    """Return an interval, or the reason why there is none, for every metric of a table.

    Args:
        table: A predictions table; the seeds of a finalist move together with their patients, and
            a metric is the mean over them.
        resamples: How many draws of patients; quantiles far out want 2,000 of them.
        level: The share of the truths to cover.
        seed: Of the draws; the same seed gives the same intervals.

    Raises:
        DataError: The table is empty.
    """
    values = compute_metrics(table)
    rng = np.random.default_rng(seed)
    draws = resampled_metrics(table, draw_weights(strata_of(table), resamples, rng))
    bases = _bases_of(table)
    known: dict[str, Interval] = {}
    reasons: dict[str, str] = {}
    for name, value in values.items():
        head, _ = split_metric_name(name)
        found = metric_interval(name, value, draws[name], bases[head], level=level)
        if isinstance(found, Interval):
            known[name] = found
        else:
            reasons[name] = found
    return Intervals(level, values, known, reasons)


@dataclass(frozen=True)
class Basis:
    """What the intervals of one level and part of a table rest on.

    Attributes:
        patients: Patients of every class of the task, 0 where none.
        recalls: Recall of every class that occurs.
    """

    patients: Mapping[str, int]
    recalls: Mapping[str, float]


def metric_interval(
    name: str, value: float, draws: FloatArray, basis: Basis, *, level: float
) -> Interval | str:
    """Return the interval of one metric, or in words why it has none.

    Args:
        name: Its full name, such as ``patient/auroc``.
        value: Its value.
        draws: Its value in every resample, float [B], NaN where it has none.
        basis: Patients and recalls of its level and part.
        level: The share of the truths to cover.
    """
    groups = groups_needed(name, basis.patients)
    pooled = "patients" in groups  # a mean over all of them rests on every class that occurs
    classes = {g: n for g, n in basis.patients.items() if n} if pooled else groups
    scarce = [f"{count} {group}" for group, count in classes.items() if count < MIN_PATIENTS]
    if scarce:
        return f"too few patients for an interval ({', '.join(scarce).replace('_', ' ')})"
    n, method = min(groups.values()), method_of(name)
    if method == "wilson":
        return Interval(*wilson_bounds(value, n, level), n, method)
    if method == "wilson_mean":
        shares = [(basis.recalls[group], count) for group, count in groups.items()]
        return Interval(*wilson_mean_bounds(shares, level), n, method)
    return _bootstrap_interval(name, value, draws, n, level)


def _bootstrap_interval(
    name: str, value: float, draws: FloatArray, n: int, level: float
) -> Interval | str:
    defined = draws[~np.isnan(draws)]
    missing = len(draws) - len(defined)
    if missing > MAX_UNDEFINED_SHARE * len(draws):
        return f"it has no value in {missing:,} of {len(draws):,} draws of patients"
    if np.ptp(defined) <= _ROUNDING:
        return "it is the same in every draw of patients, which says nothing of its spread"
    method = method_of(name)
    if method == "bootstrap_percentile":
        return Interval(*expanded_percentile_bounds(defined, n, level), n, method)
    least = -1.0 if name.endswith("/mcc") else 0.0
    return Interval(*logit_bounds(value, defined, n, level, least=least), n, method)


def split_metric_name(name: str) -> tuple[str, str]:
    """Return the head of a metric's name (part and level) and the metric itself.

    >>> split_metric_name("magnification_40/image/auroc"), split_metric_name("patient/accuracy")
    (('magnification_40/image', 'auroc'), ('patient', 'accuracy'))
    """
    first, _, rest = name.partition("/")
    if not first.startswith("magnification_"):
        return first, rest
    level, _, metric = rest.partition("/")
    return f"{first}/{level}", metric


def method_of(name: str) -> Method:
    """Return how the interval of a metric is made.

    >>> method_of("patient/recall_benign"), method_of("patient_mean_logit/balanced_accuracy")
    ('wilson', 'wilson_mean')
    >>> method_of("image/recall_benign"), method_of("patient/auroc")
    ('bootstrap_logit', 'bootstrap_percentile')
    """
    head, metric = split_metric_name(name)
    level = head.rpartition("/")[2]
    if metric == RECOGNITION_RATE or (level == "image" and metric not in _ERRORS):
        return "bootstrap_logit"
    if level != "image" and metric in {"balanced_accuracy", "recall_macro"}:
        return "wilson_mean"
    if level != "image" and (metric == "accuracy" or metric.startswith("recall_")):
        return "wilson"
    return "bootstrap_percentile"


def groups_needed(name: str, patients: Mapping[str, int]) -> dict[str, int]:
    """Return the groups of patients that a metric cannot do without, and their sizes.

    Args:
        name: Its full name, such as ``image/recall_benign``.
        patients: Patients of every class of the task.

    >>> groups_needed("image/auroc_malignant", {"benign": 3, "malignant": 10})
    {'malignant': 10, 'benign': 3}
    >>> groups_needed("image/accuracy", {"benign": 3, "malignant": 10})
    {'patients': 13}
    """
    metric = split_metric_name(name)[1]
    total, binary = sum(patients.values()), is_binary(tuple(patients))
    if metric in _POOLED or (metric == "mcc" and not binary):
        return {"patients": total}
    for group, count in patients.items():
        if metric.endswith(f"_{group}"):
            rest = next(other for other in patients if other != group) if binary else "others"
            # False positives are the others' patients: recall alone does without them.
            by_others = not metric.startswith("recall_")
            return {group: count} | ({rest: total - count} if by_others else {})
    return {group: count for group, count in patients.items() if count}


def _bases_of(table: pd.DataFrame) -> dict[str, Basis]:
    """Return the basis of every head of a metric name, such as ``magnification_40/image``."""
    bases = {}
    parts = [("", table)] + [
        (f"magnification_{magnification}/", part)
        for magnification, part in table.groupby("magnification", sort=True)
    ]
    for prefix, part in parts:
        patients = patients_by_class(part)
        for level in LEVELS:
            bases[prefix + level] = Basis(patients, _recalls(part, level))
    return bases


def _recalls(table: pd.DataFrame, level: Level) -> dict[str, float]:
    """Return the recall of every class that occurs, the mean over the seeds."""
    recalls: dict[str, list[float]] = {}
    for part in tables_by_seed(table):
        decisions = decisions_of(part, level)
        right = decisions.y_true == decisions.y_pred
        for index in np.unique(decisions.y_true):
            found = recalls.setdefault(decisions.class_names[index], [])
            found.append(float(right[decisions.y_true == index].mean()))
    return {name: float(np.mean(by_seed)) for name, by_seed in recalls.items()}
