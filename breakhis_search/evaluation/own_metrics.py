"""Metrics of the user's own: functions that a study file names under ``metrics:``.

They are computed beside those of :mod:`.metrics` from the same predictions, of all images and of
all patients, under names of their own: ``own/image/<function>`` and ``own/patient/<function>``.
They have no intervals, and nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isfinite, isnan
from numbers import Real
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import TrialFailure
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel, Sample, samples_by_seed
from breakhis_search.own_code import load_function, tried_on

OWN = "own/"
"""What the names of all such metrics begin with."""


class Metric(Protocol):
    """A metric of the user's own."""

    def __call__(
        self, y_true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], /
    ) -> Any:
        """Return one finite number, or NaN where the metric has no value.

        Args:
            y_true: Class indices, int64 [n]; in the binary task 1 is *malignant*.
            probabilities: float64 [n, K], each row with sum 1. A row is an image, or a patient with
                the mean of the probabilities of the patient's images.
        """


def own_name(metric: str, level: DrawnLevel) -> str:
    """Return the name of a metric at a level.

    >>> own_name("my_metrics:sensitivity_at_90_specificity", "patient")
    'own/patient/sensitivity_at_90_specificity'
    """
    return f"{OWN}{level}/{metric.rpartition(':')[2]}"


def compute_own_metrics(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    """Return the metrics of the user's own that have a value, by their flat names.

    Of several seeds it is the mean of the values of each, as everywhere; there is none where one of
    them has none.

    Args:
        table: A predictions table with at least one row.
        metrics: Each as ``module:function``.

    Raises:
        TrialFailure: A function fails, or gives no number.
        DataError: The table is empty.
    """
    values: dict[str, float] = {}
    for level in DRAWN_LEVELS if metrics else ():
        samples = samples_by_seed(table, level)
        for metric in metrics:
            value = float(np.mean([_measure(metric, sample) for sample in samples]))
            if not isnan(value):
                values[own_name(metric, level)] = value
    return values


def check_metric(metric: str, names: tuple[str, ...]) -> None:
    """Try a metric of the user's own on made-up answers, before anything is trained.

    Args:
        metric: ``module:function``.
        names: The classes.

    Raises:
        ConfigError: There is no such function, or it gives no number for the example.
    """
    with tried_on(f"{_EXAMPLE_OF_EACH} rows of every class"):
        _measure(metric, _example(names))


@cache
def _load(metric: str) -> Metric:
    return load_function(metric, role="metric", key="metrics:")


def _measure(metric: str, sample: Sample) -> float:
    measure = _load(metric)
    try:
        value = measure(sample.y_true.copy(), sample.probabilities.copy())
    except Exception as error:  # someone else's code: whatever it raises ends this trial alone
        raise TrialFailure(
            f"metric {metric} cannot be computed",
            received=f"{type(error).__name__}: {error}",
            remedy="correct it, or take it out of metrics:",
        ) from error
    if not isinstance(value, Real) or not (isfinite(value) or isnan(value)):
        raise TrialFailure(
            f"metric {metric} gives no number",
            expected="one finite number, or NaN where it has no value",
            received=repr(value)[:100],
            remedy="correct what it returns",
        )
    return float(value)


_EXAMPLE_OF_EACH = 8


def _example(names: tuple[str, ...]) -> Sample:
    """Answers that are right more often than not."""
    rng = np.random.default_rng(0)
    y_true = np.repeat(np.arange(len(names)), _EXAMPLE_OF_EACH)
    chances = rng.dirichlet(np.ones(len(names)), size=len(y_true)) + np.eye(len(names))[y_true]
    accession = np.array([str(row) for row in range(len(y_true))], dtype=object)
    return Sample(y_true, chances / chances.sum(axis=1, keepdims=True), names, accession)
