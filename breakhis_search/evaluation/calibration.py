"""From logits to probabilities that can be taken at their word.

Two corrections, in this order: a constant per class undoes the class prior that the sampling
strategy showed the model (:func:`breakhis_search.data.sampling.prior_correction`), and one
temperature, fitted to the pooled out-of-fold predictions, takes back over- or under-confidence.
Neither changes a ranking within a class of the binary task; together they may change which class
is the most probable one, because calibrated probabilities follow the natural share of the classes.

The folds' models and the refit that is registered share a configuration, not weights: the
temperature is an estimate for the refit, to be checked on the sealed test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.calibration_scores import (
    brier,
    classwise_ece,
    ece,
    error_by_chance,
    nll,
)
from breakhis_search.evaluation.predictions import (
    LOGIT_PREFIX,
    class_names_of,
    logits_of,
    softmax,
    tables_by_seed,
)
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel, Sample, sample_of

FloatArray = npt.NDArray[np.float64]

CROSS_FIT_GROUPS = 10
"""Into how many parts accessions are dealt to judge a temperature on patients it has not seen."""


@dataclass(frozen=True)
class Calibration:
    """How the logits of a model become calibrated probabilities: softmax((logits + c) / T).

    Attributes:
        prior_correction: c, one constant per class.
        temperature: T, positive; above 1 it takes confidence away.
    """

    prior_correction: tuple[float, ...]
    temperature: float

    def calibrated_logits(self, logits: npt.ArrayLike) -> FloatArray:
        """Return (logits + c) / T, float64 [n, K]."""
        scores = np.asarray(logits, dtype=np.float64)
        return np.asarray((scores + np.array(self.prior_correction)) / self.temperature)

    def calibrated_probabilities(self, logits: npt.ArrayLike) -> FloatArray:
        """Return softmax((logits + c) / T), float64 [n, K], each row summing to 1.

        >>> Calibration((0.0, 0.0), 2.0).calibrated_probabilities([[0.0, 4.0]]).round(3).tolist()
        [[0.119, 0.881]]
        """
        return softmax(self.calibrated_logits(logits))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"prior_correction": list(self.prior_correction), "temperature": self.temperature}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what :meth:`to_dict` wrote.

        >>> Calibration.from_dict(Calibration((0.1, -0.2), 1.5).to_dict()).temperature
        1.5
        """
        corrections = tuple(float(value) for value in values["prior_correction"])
        return cls(corrections, float(values["temperature"]))


def fit_calibration(table: pd.DataFrame, prior_correction: npt.ArrayLike) -> Calibration:
    """Return the calibration of a configuration, from its pooled out-of-fold predictions.

    Rows are weighted by :func:`patient_weights`, and those of several seeds are pooled.

    Args:
        table: Predictions, logits as the model gave them.
        prior_correction: float [K], see :func:`breakhis_search.data.sampling.prior_correction`.

    Raises:
        DataError: The table is empty, or the corrections are not one finite number per class.
    """
    from breakhis_search.evaluation.temperature import fit_temperature

    correction = _checked(prior_correction, table)
    logits = Calibration(correction, 1.0).calibrated_logits(logits_of(table))
    temperature = fit_temperature(logits, table["y_true"].to_numpy(), patient_weights(table))
    return Calibration(correction, temperature)


def patient_weights(table: pd.DataFrame) -> FloatArray:
    """Return a weight for every row, float64 [n], with mean 1.

    The patients of a class count equally, however many images (38 to 493 in BreaKHis) and seeds
    they have, so that a few patients do not set the temperature: in 300 simulations with BreaKHis'
    numbers of images the standard deviation of ln T fell from 0.22 to 0.18. Each class keeps its
    share of the images: that is the natural prior which the prior correction aims at, and giving
    every patient the same weight outright would ask the temperature, which cannot, for another one.

    >>> table = pd.DataFrame({"accession": ["a", "a", "b", "c"], "y_true": [0, 0, 0, 1]})
    >>> patient_weights(table).tolist()
    [0.75, 0.75, 1.5, 1.0]
    """
    patient = table.groupby(["accession", "y_true"], sort=False)
    rows_of_patient = patient["y_true"].transform("size").to_numpy()
    by_class = table.groupby("y_true", sort=False)
    rows_of_class = by_class["accession"].transform("size").to_numpy()
    patients_of_class = by_class["accession"].transform("nunique").to_numpy()
    return np.asarray(rows_of_class / (patients_of_class * rows_of_patient), dtype=np.float64)


def calibrate_table(table: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """Return the predictions with calibrated logits.

    Everything that reads a predictions table reads calibrated probabilities from it: image by
    image, or as the mean over the images of a patient.
    """
    columns = [LOGIT_PREFIX + name for name in class_names_of(table)]
    calibrated = table.copy()
    calibrated[columns] = calibration.calibrated_logits(logits_of(table)).astype(np.float32)
    return calibrated


def cross_fit(table: pd.DataFrame, prior_correction: npt.ArrayLike) -> pd.DataFrame:
    """Return the predictions, those of each patient calibrated with a temperature of the others.

    A temperature that is judged on the rows it was fitted to looks better than it is. Accessions
    are dealt into :data:`CROSS_FIT_GROUPS` groups (all rows and seeds of an accession into one,
    classes evenly), and the rows of a group get the temperature of all other groups.

    Raises:
        DataError: There are fewer than two accessions, or :func:`fit_calibration` refuses.
    """
    parts = [
        calibrate_table(table[held_out], fit_calibration(table[~held_out], prior_correction))
        for held_out in held_out_groups(table)
    ]
    return pd.concat(parts).loc[table.index]


def held_out_groups(table: pd.DataFrame) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield, for every group of accessions, which rows are theirs, bool [n].

    Raises:
        DataError: There are fewer than two accessions.
    """
    first_class = table.groupby("accession", sort=True)["y_true"].min()
    accessions = first_class.sort_values(kind="stable").index.to_numpy()
    if len(accessions) < 2:
        raise DataError(
            "calibration cannot be judged on other patients",
            expected="predictions for at least two accessions",
            received=f"{len(accessions)}",
        )
    groups = min(CROSS_FIT_GROUPS, len(accessions))
    for first in range(groups):
        yield table["accession"].isin(accessions[first::groups]).to_numpy(dtype=np.bool_)


def calibration_metrics(table: pd.DataFrame, prior_correction: npt.ArrayLike) -> dict[str, float]:
    """Return how well calibrated a configuration is before and after, at both levels.

    Before: the softmax of the logits as the model gave them. After: :func:`cross_fit`, so that no
    patient is judged with a temperature of its own. Each is the mean over the seeds.

    Returns:
        By names such as ``calibration/before/image/ece`` the scores of
        :mod:`.calibration_scores`: ``nll``, ``brier``, ``ece``, ``ece_classwise``, and for patients
        ``ece_by_chance``: an ``ece`` of that size is luck. ``nll`` is left out where a true class
        has the probability 0.

    Raises:
        DataError: See :func:`cross_fit`.
    """
    states = {"before": table, "after": cross_fit(table, prior_correction)}
    return {
        f"calibration/{state}/{name}": value
        for state, answers in states.items()
        for name, value in scores_at_both_levels(answers).items()
        if np.isfinite(value)
    }


def pooled_sample(table: pd.DataFrame, level: DrawnLevel) -> Sample:
    """Return the images or patients of every seed, one seed after the other.

    Raises:
        DataError: The table is empty.
    """
    if table.empty:
        raise DataError("there is nothing to evaluate", expected="a table with at least one row")
    return concatenate_samples([sample_of(part, level) for part in tables_by_seed(table)])


def concatenate_samples(samples: Sequence[Sample]) -> Sample:
    """Return the rows of several samples of the same classes, at least one, as one sample."""
    return Sample(
        np.concatenate([sample.y_true for sample in samples]),
        np.concatenate([sample.probabilities for sample in samples]),
        samples[0].class_names,
        np.concatenate([sample.accession for sample in samples]),
    )


def scores_at_both_levels(table: pd.DataFrame) -> dict[str, float]:
    """Return the calibration scores of a table as it is, each the mean over its seeds.

    Returns:
        ``{"image/nll": …, "image/brier": …, …, "patient/ece": …}``; the names are explained at
        :func:`calibration_metrics`. For the sealed test, give its calibrated predictions.
    """
    by_seed = [
        {
            f"{level}/{name}": value
            for level in DRAWN_LEVELS
            for name, value in _scores(sample_of(part, level), patients=level == "patient").items()
        }
        for part in tables_by_seed(table)
    ]
    return {name: float(np.mean([scores[name] for scores in by_seed])) for name in by_seed[0]}


def _scores(sample: Sample, *, patients: bool) -> dict[str, float]:
    y_true, probabilities = sample.y_true, sample.probabilities
    scores = {
        "nll": nll(y_true, probabilities),
        "brier": brier(y_true, probabilities),
        "ece": ece(y_true, probabilities),
        "ece_classwise": classwise_ece(y_true, probabilities),
    }
    if patients:  # images of one patient are right or wrong together: chance is larger than this
        scores["ece_by_chance"] = error_by_chance(probabilities.max(axis=1))
    return scores


def _checked(prior_correction: npt.ArrayLike, table: pd.DataFrame) -> tuple[float, ...]:
    if table.empty:
        raise DataError("there is nothing to calibrate", expected="a table with at least one row")
    correction, classes = np.asarray(prior_correction, dtype=np.float64), class_names_of(table)
    if correction.shape != (len(classes),) or not np.isfinite(correction).all():
        raise DataError(
            "the prior correction does not fit the predictions",
            expected=f"one finite number for each of {', '.join(classes)}",
            received=str(correction.tolist()),
        )
    return tuple(correction.tolist())
