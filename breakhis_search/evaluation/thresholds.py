"""From which probability on the binary task says *malignant*, fixed before the sealed test is seen.

Three rules, each locked on the calibrated out-of-fold predictions, by image and by patient (mean
calibrated probability of the patient's images), pooled over seeds:

==================  ================================================================================
``half``            0.5: the more probable class
``youden``          the largest sensitivity + specificity - 1 (W. Youden, Cancer 3, 1950); of equal
                    ones that of the highest sensitivity, and the middle of the gap between the
                    scores it lies in, so that separable data are not cut at their edge
``sensitivity_95``  the highest threshold that still finds 95 % of the malignant
==================  ================================================================================

*Malignant* is called where the probability is at or above the threshold. A table is expected to be
calibrated already: what :func:`.calibration.calibrate_table` gives, or logarithms of the registered
classifier's probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.calibration import (
    concatenate_samples,
    held_out_groups,
    pooled_sample,
)
from breakhis_search.evaluation.interval_bounds import wilson_bounds
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.ranking import count_by_threshold
from breakhis_search.evaluation.resampled_metrics import MIN_PATIENTS
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel, Sample

Rule = Literal["half", "youden", "sensitivity_95"]
Rate = Literal["sensitivity", "specificity", "ppv", "npv"]

RULES: tuple[Rule, ...] = get_args(Rule)
RATES: tuple[Rate, ...] = get_args(Rate)

RULE_TITLES: Mapping[Rule, str] = {
    "half": "0.5",
    "youden": "Youden",
    "sensitivity_95": "95 % sensitivity",
}
"""What people read of a rule."""

DECISION_RULE: Rule = "youden"
"""What the registered classifier decides by, unless told otherwise.

It weighs both mistakes alike, as the objectives of a study do, and does not depend on how common
malignancy is in the images at hand. For triage, where a miss is worse, take ``sensitivity_95``.
"""

TARGET_SENSITIVITY = 0.95

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Thresholds:
    """Locked thresholds of the calibrated probability of *malignant*.

    Attributes:
        image: Rule → threshold for the probability of an image.
        patient: Rule → threshold for the mean probability of a patient's images.
        decision: The rule that the registered classifier decides by.
    """

    image: Mapping[Rule, float]
    patient: Mapping[Rule, float]
    decision: Rule = DECISION_RULE

    def value(self, level: DrawnLevel, rule: Rule | None = None) -> float:
        """Return the threshold of a rule, by default of the one that decides.

        >>> Thresholds({"youden": 0.4}, {"youden": 0.6}).value("patient")
        0.6
        """
        return (self.image if level == "image" else self.patient)[rule or self.decision]

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {
            "image": dict(self.image),
            "patient": dict(self.patient),
            "decision": self.decision,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """Return what :meth:`to_dict` wrote."""
        return cls(dict(values["image"]), dict(values["patient"]), values["decision"])


class Proportion(TypedDict):
    """A share of cases that were called right, as JSON values.

    ``value`` is ``right / of`` (``None`` if there is no case); ``of`` counts images or patients, of
    all seeds together; ``patients`` are the distinct ones behind it. ``low`` and ``high`` bound the
    95 % Wilson interval, at patient level from five patients on, else ``None``: images of one
    patient are no independent cases. Of several seeds it is the interval of their mean.
    """

    value: float | None
    right: int
    of: int
    patients: int
    low: float | None
    high: float | None


class OperatingPoint(TypedDict):
    """What a threshold does, as JSON values; ``ppv`` and ``npv`` hold for these patients' mix."""

    level: str
    threshold: float
    seeds: int
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion


def lock_thresholds(table: pd.DataFrame, *, decision: Rule = DECISION_RULE) -> Thresholds:
    """Return the thresholds of all rules at both levels.

    Args:
        table: Calibrated out-of-fold predictions of the binary task, of one seed or several.
        decision: The rule the registered classifier shall decide by.

    Raises:
        DataError: The task is not the binary one, or one of its classes is absent.
    """
    image, patient = (_lock(pooled_binary_sample(table, level)) for level in DRAWN_LEVELS)
    return Thresholds(image, patient, decision)


def at_threshold(table: pd.DataFrame, threshold: float, level: DrawnLevel) -> OperatingPoint:
    """Return sensitivity, specificity, PPV and NPV for *malignant* at a threshold, with counts.

    Args:
        table: Calibrated predictions of the binary task; those of the sealed test, or others on
            which the threshold was not chosen.
        threshold: Of the probability of *malignant*.
        level: What a case is.

    Raises:
        DataError: The task is not the binary one.
    """
    sample = pooled_binary_sample(table, level)
    called = sample.probabilities[:, 1] >= threshold
    return _operating_point(sample, called, threshold, level, table["seed"].nunique())


def at_threshold_of_others(
    table: pd.DataFrame, level: DrawnLevel, rule: Rule = DECISION_RULE
) -> OperatingPoint:
    """Return what a rule does out-of-fold when each patient is judged by the others' threshold.

    The locked threshold was chosen on these rows, where it looks better than it is. Accessions are
    held out group by group (:func:`.calibration.held_out_groups`); ``threshold`` is still the
    locked one. This is the honest figure where there is no sealed test.

    Args:
        table: Calibrated out-of-fold predictions, best from :func:`.calibration.cross_fit`.
        level: What a case is.
        rule: One of :data:`RULES`.

    Raises:
        DataError: The task is not the binary one, or without a group a class has no accession.
    """
    samples, called = [], []
    for held_out in held_out_groups(table):
        threshold = _lock(pooled_binary_sample(table[~held_out], level))[rule]
        samples.append(pooled_binary_sample(table[held_out], level))
        called.append(samples[-1].probabilities[:, 1] >= threshold)
    locked = _lock(pooled_binary_sample(table, level))[rule]
    seeds = table["seed"].nunique()
    return _operating_point(
        concatenate_samples(samples), np.concatenate(called), locked, level, seeds
    )


def locked_metrics(table: pd.DataFrame, thresholds: Thresholds) -> dict[str, float]:
    """Return the four rates at every locked threshold by flat names, as far as they are defined.

    Returns:
        ``image/sensitivity``, ``patient/npv``, … at the threshold that decides, and
        ``image/sensitivity_at_half``, ``patient/ppv_at_sensitivity_95``, … at that of each rule.

    Raises:
        DataError: The task is not the binary one.
    """
    metrics: dict[str, float] = {}
    for level in DRAWN_LEVELS:
        for rule in RULES:
            point = at_threshold(table, thresholds.value(level, rule), level)
            for rate in RATES:
                value = point[rate]["value"]
                if value is None:
                    continue
                metrics[f"{level}/{rate}_at_{rule}"] = value
                if rule == thresholds.decision:
                    metrics[f"{level}/{rate}"] = value
    return metrics


def pooled_binary_sample(table: pd.DataFrame, level: DrawnLevel) -> Sample:
    """Return the images or patients of every seed, one seed after the other.

    Raises:
        DataError: The task is not the binary one, or the table is empty.
    """
    names = class_names_of(table)
    if not is_binary(names):
        raise DataError(
            "a threshold needs one positive class",
            expected="predictions of the binary task",
            received=f"{len(names)} classes",
            remedy="the most probable class decides between several",
        )
    return pooled_sample(table, level)


def patient_interval(share: float, patients: float) -> tuple[float, float] | None:
    """Return the 95 % Wilson interval of a share of patients, or ``None`` below five of them.

    Args:
        share: In [0, 1]; over several seeds, which repeat the patients, their mean.
        patients: How many there are in a seed, on average; rounded to whole ones.

    >>> [round(bound, 3) for bound in patient_interval(0.9, 10)]
    [0.596, 0.982]
    >>> patient_interval(1.0, 4) is None
    True
    """
    if patients < MIN_PATIENTS:
        return None
    return wilson_bounds(share, round(patients), 0.95)


def _lock(sample: Sample) -> dict[Rule, float]:
    counts = count_by_threshold(sample.y_true == 1, sample.probabilities[:, 1])
    if not counts.has_both:
        raise DataError(
            "a threshold cannot be chosen",
            expected="benign and malignant cases",
            received=f"only {', '.join(sample.names_present)}",
        )
    sensitivity = counts.true_positives / counts.true_positives[-1]
    false_alarms = counts.false_positives / counts.false_positives[-1]
    return {
        "half": 0.5,
        "youden": _below(counts.thresholds, _last_largest(sensitivity - false_alarms)),
        "sensitivity_95": float(counts.thresholds[np.argmax(sensitivity >= TARGET_SENSITIVITY)]),
    }


def _last_largest(values: FloatArray) -> int:
    """Return the index of the last of the largest values, equal but for rounding."""
    return int(np.flatnonzero(np.isclose(values, values.max(), rtol=0, atol=1e-12))[-1])


def _below(thresholds: FloatArray, index: int) -> float:
    """Return the middle between a score and the next lower one, or 0 below the lowest."""
    lower = thresholds[index + 1] if index + 1 < len(thresholds) else 0.0
    return float((thresholds[index] + lower) / 2)


def _operating_point(
    sample: Sample, called: BoolArray, threshold: float, level: DrawnLevel, seeds: int
) -> OperatingPoint:
    positive = sample.y_true == 1

    def share(right: BoolArray, among: BoolArray) -> Proportion:
        return _proportion(right, among, sample.accession, level, seeds)

    return {
        "level": level,
        "threshold": float(threshold),
        "seeds": seeds,
        "sensitivity": share(called, positive),
        "specificity": share(~called, ~positive),
        "ppv": share(positive, called),
        "npv": share(~positive, ~called),
    }


def _proportion(
    right: BoolArray,
    among: BoolArray,
    accession: npt.NDArray[np.object_],
    level: DrawnLevel,
    seeds: int,
) -> Proportion:
    of, hits = int(among.sum()), int((right & among).sum())
    patients = len(set(accession[among]))
    interval = patient_interval(hits / of, of / seeds) if of and level == "patient" else None
    low, high = interval or (None, None)
    return {
        "value": hits / of if of else None,
        "right": hits,
        "of": of,
        "patients": patients,
        "low": low,
        "high": high,
    }
