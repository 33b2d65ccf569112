"""What is scored at one level: every image, or every patient by mean probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import (
    PROBABILITY_PREFIX,
    by_patient_mean_probability,
    class_names_of,
    probabilities_of,
)

Level = Literal["image", "patient"]

LEVELS: tuple[Level, ...] = ("image", "patient")


@dataclass(frozen=True)
class Sample:
    """What is scored at one level.

    Attributes:
        y_true: Class indices, int [n].
        probabilities: float64 [n, K].
        class_names: The K names.
    """

    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    class_names: tuple[str, ...]

    @property
    def y_pred(self) -> npt.NDArray[np.int64]:
        """The most probable class of each row, int [n]; the first one on a tie."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def names_present(self) -> list[str]:
        """The classes that occur in ``y_true``, in class order."""
        return [self.class_names[index] for index in np.unique(self.y_true)]


def sample_of(table: pd.DataFrame, level: Level) -> Sample:
    """Return truth and probabilities of every image, or of every patient.

    Raises:
        DataError: The table is empty.
    """
    if table.empty:
        raise DataError("there is nothing to evaluate", expected="a table with at least one row")
    names = class_names_of(table)
    if level == "image":
        return Sample(table["y_true"].to_numpy(np.int64), probabilities_of(table), names)
    patients = by_patient_mean_probability(table)
    probabilities = patients[[PROBABILITY_PREFIX + name for name in names]].to_numpy(np.float64)
    return Sample(patients["y_true"].to_numpy(np.int64), probabilities, names)


def confusion_matrix(sample: Sample) -> npt.NDArray[np.int64]:
    """Return the counts, int [K, K]: rows are true classes, columns predicted ones.

    >>> sample = Sample(np.array([0, 1, 1]), np.array([[1.0, 0], [1, 0], [0, 1]]), ("a", "b"))
    >>> confusion_matrix(sample).tolist()
    [[1, 0], [1, 1]]
    """
    classes = len(sample.class_names)
    cells = sample.y_true * classes + sample.y_pred
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
