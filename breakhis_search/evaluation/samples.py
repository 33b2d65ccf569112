"""What is scored at each level: every image, or every patient in one of three ways.

========================  ==========================================================================
level                     what is scored
========================  ==========================================================================
``image``                 every image, by its probabilities
``patient``               every patient, by the mean of the probabilities of the patient's images
``patient_mean_logit``    every patient, by the softmax of the mean of the logits
``patient_majority_vote`` every patient, by the class that most images are given to; a tie goes to
                          the higher mean probability. There is a decision, but no probability.
========================  ==========================================================================

Spanhol's recognition rate (:func:`recognition_shares`) is a fifth thing: it decides nothing about a
patient. A patient is an (accession, true class) pair at every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import (
    class_names_of,
    logits_of,
    probabilities_of,
    softmax,
    tables_by_seed,
)

DrawnLevel = Literal["image", "patient"]
ScoredLevel = Literal["image", "patient", "patient_mean_logit"]
Level = Literal["image", "patient", "patient_mean_logit", "patient_majority_vote"]

DRAWN_LEVELS: tuple[DrawnLevel, ...] = get_args(DrawnLevel)
"""The levels that have curves and confusion matrices drawn."""

SCORED_LEVELS: tuple[ScoredLevel, ...] = get_args(ScoredLevel)
"""The levels that give every row probabilities."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""All levels; each has decisions."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
TextArray = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Decisions:
    """One class for every row of a level.

    Attributes:
        y_true: Class indices, int [n].
        y_pred: The classes decided for, int [n].
        class_names: The K names.
        accession: Whose rows they are, str [n].
    """

    y_true: IntArray
    y_pred: IntArray
    class_names: tuple[str, ...]
    accession: TextArray

    @property
    def names_present(self) -> list[str]:
        """The classes that occur in ``y_true``, in class order."""
        return [self.class_names[index] for index in np.unique(self.y_true)]


@dataclass(frozen=True)
class Sample:
    """What is scored at one level.

    Attributes:
        y_true: Class indices, int [n].
        probabilities: float64 [n, K].
        class_names: The K names.
        accession: Whose rows they are, str [n].
    """

    y_true: IntArray
    probabilities: FloatArray
    class_names: tuple[str, ...]
    accession: TextArray

    @property
    def y_pred(self) -> IntArray:
        """The most probable class of each row, int [n]; the first one on a tie."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def decisions(self) -> Decisions:
        """The rows with their most probable class in place of the probabilities."""
        return Decisions(self.y_true, self.y_pred, self.class_names, self.accession)

    @property
    def names_present(self) -> list[str]:
        """The classes that occur in ``y_true``, in class order."""
        return self.decisions.names_present


def sample_of(table: pd.DataFrame, level: ScoredLevel) -> Sample:
    """Return truth and probabilities of every image, or of every patient.

    Args:
        table: A predictions table of one seed.
        level: What a row of the sample is.

    Raises:
        DataError: The table is empty or holds several seeds.
    """
    check_one_seed(table)
    names = class_names_of(table)
    if level == "image":
        truth = table["y_true"].to_numpy(np.int64)
        return Sample(truth, probabilities_of(table), names, table["accession"].to_numpy(object))
    patients = _patients_of(table)
    scores = (
        patients.mean(probabilities_of(table))
        if level == "patient"
        else softmax(patients.mean(logits_of(table).astype(np.float64)))
    )
    return Sample(patients.y_true, scores, names, patients.accession)


def samples_by_seed(table: pd.DataFrame, level: ScoredLevel) -> list[Sample]:
    """Return the sample of each seed, in order of the seeds; rows are the same in all of them.

    Raises:
        DataError: The table is empty.
    """
    check_not_empty(table)
    return [sample_of(part, level) for part in tables_by_seed(table)]


def decisions_of(table: pd.DataFrame, level: Level) -> Decisions:
    """Return truth and decision of every image, or of every patient.

    Raises:
        DataError: The table is empty or holds several seeds.
    """
    if level != "patient_majority_vote":
        return sample_of(table, level).decisions
    check_one_seed(table)
    probabilities, patients = probabilities_of(table), _patients_of(table)
    votes = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    # A mean probability is at most 1 and a vote counts 2: it orders ties and nothing else.
    elected = 2 * patients.sum(votes) + patients.mean(probabilities)
    y_pred = np.asarray(elected.argmax(axis=1), dtype=np.int64)
    return Decisions(patients.y_true, y_pred, class_names_of(table), patients.accession)


def patients_by_class(table: pd.DataFrame) -> dict[str, int]:
    """Return how many patients are scored of every class of the task, 0 where none."""
    patients = table[["accession", "y_true"]].drop_duplicates()["y_true"].value_counts()
    return {name: int(patients.get(index, 0)) for index, name in enumerate(class_names_of(table))}


def recognition_shares(table: pd.DataFrame) -> tuple[FloatArray, TextArray]:
    """Return the share of right images of every patient, [P] in [0, 1], and the accessions, [P].

    Their mean is the patient recognition rate of Spanhol et al., IEEE TBME 63(7), 2016.

    Raises:
        DataError: The table is empty or holds several seeds.
    """
    images, patients = sample_of(table, "image"), _patients_of(table)
    right = (images.y_pred == images.y_true).astype(np.float64)
    return patients.mean(right[:, None])[:, 0], patients.accession


def confusion_matrix(decisions: Decisions | Sample) -> IntArray:
    """Return the counts, int [K, K]: rows are true classes, columns predicted ones.

    >>> sample = Sample(
    ...     np.array([0, 1, 1]),
    ...     np.array([[1.0, 0], [1, 0], [0, 1]]),
    ...     ("a", "b"),
    ...     np.array(["x", "y", "z"], dtype=object),
    ... )
    >>> confusion_matrix(sample).tolist()
    [[1, 0], [1, 1]]
    """
    classes = len(decisions.class_names)
    cells = decisions.y_true * classes + decisions.y_pred
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def check_not_empty(table: pd.DataFrame) -> None:
    """Raise unless the table has a row.

    Raises:
        DataError: It has none.
    """
    if table.empty:
        raise DataError("there is nothing to evaluate", expected="a table with at least one row")


def check_one_seed(table: pd.DataFrame) -> None:
    """Raise unless the table can be scored as it stands.

    Raises:
        DataError: The table is empty, or several seeds scored it: averaging their probabilities
            would score an ensemble that nobody ships.
    """
    check_not_empty(table)
    seeds = table["seed"].nunique()
    if seeds > 1:
        raise DataError(
            "several seeds cannot be scored as one table",
            expected="the predictions of one seed",
            received=f"{seeds} seeds",
            remedy="score each of predictions.tables_by_seed(table) and average the metrics",
        )


@dataclass(frozen=True)
class _Patients:
    """The patients of a table, sorted by accession and class.

    Attributes:
        row: Index of the patient of each image, int [n].
        y_true: int [P].
        accession: str [P].
    """

    row: IntArray
    y_true: IntArray
    accession: TextArray

    def sum(self, values: FloatArray) -> FloatArray:
        """Return sums over the images of each patient, float64 [P, K], of values [n, K]."""
        sums = np.zeros((len(self.y_true), values.shape[1]))
        np.add.at(sums, self.row, values)
        return sums

    def mean(self, values: FloatArray) -> FloatArray:
        """Return means over the images of each patient, float64 [P, K], of values [n, K]."""
        return self.sum(values) / np.bincount(self.row)[:, None]


def _patients_of(table: pd.DataFrame) -> _Patients:
    truth = table["y_true"].to_numpy(np.int64)
    codes, accessions = pd.factorize(table["accession"].to_numpy(object), sort=True)
    classes = truth.max() + 1
    patients, row = np.unique(codes * classes + truth, return_inverse=True)
    return _Patients(row, patients % classes, accessions[patients // classes])
