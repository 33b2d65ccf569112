"""What a predictions table says of a model, computed once for the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.calibration import (
    Calibration,
    calibrate_table,
    calibration_metrics,
    cross_fit,
    scores_at_both_levels,
)
from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.intervals import Intervals, bootstrap_intervals
from breakhis_search.evaluation.metrics import undefined_metrics
from breakhis_search.evaluation.mistakes import ConfusedPair, confused_pairs
from breakhis_search.evaluation.predictions import class_names_of
from breakhis_search.evaluation.samples import DRAWN_LEVELS
from breakhis_search.evaluation.thresholds import (
    RULES,
    OperatingPoint,
    Rule,
    Thresholds,
    at_threshold,
    at_threshold_of_others,
)

Found = TypeVar("Found")


@dataclass(frozen=True)
class LockedPoint:
    """What a locked threshold does.

    Attributes:
        rule: How the threshold was chosen.
        point: Sensitivity and its kin, with counts.
    """

    rule: Rule
    point: OperatingPoint


@dataclass(frozen=True)
class Measured:
    """Everything the card says about one set of predictions.

    Attributes:
        images: How many were scored.
        patients: Of how many accessions.
        patients_by_class: Patients of every class.
        types: Tumour types that occur.
        seeds: Repetitions; every score is the mean over them.
        intervals: Every score with its 95 % interval or the reason for none.
        undefined: The scores that have no value, with the reason.
        cells: From :func:`breakhis_search.evaluation.cells.cell_table`.
        confused: Which type is taken for which class, most first.
        calibration: ``calibration/before/image/ece`` and so on; ``None`` without a calibration.
        points: Of every locked threshold; ``None`` without thresholds.
    """

    images: int
    patients: int
    patients_by_class: Mapping[str, int]
    types: tuple[str, ...]
    seeds: int
    intervals: Intervals
    undefined: Mapping[str, str]
    cells: pd.DataFrame
    confused: tuple[ConfusedPair, ...]
    calibration: Mapping[str, float] | None
    points: tuple[LockedPoint, ...] | None


def measure_out_of_fold(
    table: pd.DataFrame,
    calibration: Calibration | None,
    thresholds: Thresholds | None,
    *,
    resamples: int,
) -> Measured:
    """Return what out-of-fold predictions say; nobody is judged by a correction of their own.

    Temperature and thresholds were fitted to this very table, so each patient is judged by those
    of the other patients (:func:`.cross_fit`, :func:`.at_threshold_of_others`).

    Args:
        table: A predictions table, logits as the model gave them.
        calibration: That of the registered version.
        thresholds: Its locked thresholds.
        resamples: Draws of patients behind the intervals.
    """
    scores, points = None, None
    if calibration is not None:
        scores = _or_none(lambda: calibration_metrics(table, calibration.prior_correction))
        if thresholds is not None:
            points = _or_none(lambda: _points_of_others(table, calibration, thresholds))
    return _measure(table, scores, points, resamples)


def measure_sealed(
    table: pd.DataFrame,
    calibration: Calibration | None,
    thresholds: Thresholds | None,
    *,
    resamples: int,
) -> Measured:
    """Return what predictions of the sealed test say, at the locked calibration and thresholds.

    Args:
        table: A predictions table, logits as the model gave them.
        calibration: That of the registered version.
        thresholds: Its locked thresholds.
        resamples: Draws of patients behind the intervals.
    """
    scores, points = None, None
    if calibration is not None:
        calibrated = calibrate_table(table, calibration)
        states = {"before": table, "after": calibrated}
        scores = {
            f"calibration/{state}/{name}": value
            for state, answers in states.items()
            for name, value in scores_at_both_levels(answers).items()
        }
        if thresholds is not None:
            points = tuple(
                LockedPoint(rule, at_threshold(calibrated, thresholds.value(level, rule), level))
                for level in DRAWN_LEVELS
                for rule in RULES
            )
    return _measure(table, scores, points, resamples)


def _measure(
    table: pd.DataFrame,
    calibration: Mapping[str, float] | None,
    points: tuple[LockedPoint, ...] | None,
    resamples: int,
) -> Measured:
    patients = table[["accession", "y_true"]].drop_duplicates()
    counts = patients["y_true"].value_counts()
    return Measured(
        images=table["image"].nunique(),
        patients=table["accession"].nunique(),
        patients_by_class={
            name: int(counts.get(index, 0)) for index, name in enumerate(class_names_of(table))
        },
        types=tuple(sorted(table["type"].unique())),
        seeds=table["seed"].nunique(),
        intervals=bootstrap_intervals(table, resamples=resamples),
        undefined=undefined_metrics(table),
        cells=cell_table(table),
        confused=tuple(confused_pairs(table)),
        calibration=calibration,
        points=points,
    )


def _points_of_others(
    table: pd.DataFrame, calibration: Calibration, thresholds: Thresholds
) -> tuple[LockedPoint, ...]:
    calibrated = cross_fit(table, calibration.prior_correction)
    points = []
    for level in DRAWN_LEVELS:
        for rule in RULES:
            point = at_threshold_of_others(calibrated, level, rule)
            point["threshold"] = thresholds.value(level, rule)  # the one that is packed
            points.append(LockedPoint(rule, point))
    return tuple(points)


def _or_none(compute: Callable[[], Found]) -> Found | None:
    """Return what can be computed, or ``None`` where there are too few patients for it."""
    try:
        return compute()
    except DataError:
        return None
