"""Predictions tables of several models, checked to be of the same images and put into one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.pairwise import FloatArray, IntArray
from breakhis_search.evaluation.predictions import (
    class_names_of,
    probabilities_of,
    tables_by_seed,
)
from breakhis_search.evaluation.resampled_metrics import strata_of


@dataclass(frozen=True)
class Aligned:
    """What several models say of the same n images of P patients.

    Attributes:
        y_true: Class indices, int64 [n].
        patient: Index of each image's accession, int64 [n], in [0, P).
        accessions: The P accessions, sorted; whole accessions are resampled and swapped.
        stratum: The stratum that each accession is resampled in, int64 [P]: its class.
        class_names: The K class names.
        probabilities: One array per model, float64 [S, n, K]; S, its seeds, may differ.
    """

    y_true: IntArray
    patient: IntArray
    accessions: tuple[str, ...]
    stratum: IntArray
    class_names: tuple[str, ...]
    probabilities: tuple[FloatArray, ...]

    @property
    def images(self) -> FloatArray:
        """Images of each accession and class, float64 [P, K]."""
        counts = np.zeros((len(self.accessions), len(self.class_names)))
        np.add.at(counts, (self.patient, self.y_true), 1.0)
        return counts


def align(tables: Sequence[pd.DataFrame]) -> Aligned:
    """Return the probabilities of all tables in one order of images.

    Args:
        tables: Predictions tables, one or more; each may hold several seeds.

    Raises:
        ComparisonError: The tables (or the seeds of one) differ in their images, true classes,
            accessions or class names, or hold fewer than two classes.
    """
    names = class_names_of(tables[0])
    parts = [_by_image(table, names) for table in tables]
    first = parts[0][0]
    for part in (part for seeds in parts for part in seeds):
        _require_same(first, part)
    accessions, patient = np.unique(first["accession"].to_numpy(str), return_inverse=True)
    y_true = first["y_true"].to_numpy(np.int64)
    if len(np.unique(y_true)) < 2:
        raise ComparisonError(
            "models cannot be compared on images of one class",
            expected="images of at least two classes",
            received=f"{len(y_true)} images of class {names[int(y_true[0])]!r}",
            remedy="compare on a part of the data that holds both classes",
        )
    return Aligned(
        y_true=y_true,
        patient=patient.astype(np.int64),
        accessions=tuple(map(str, accessions)),
        stratum=strata_of(first),
        class_names=names,
        probabilities=tuple(np.stack([probabilities_of(p) for p in seeds]) for seeds in parts),
    )


def _by_image(table: pd.DataFrame, names: tuple[str, ...]) -> list[pd.DataFrame]:
    """Return the rows of each seed, sorted by image."""
    received = class_names_of(table)
    if received != names:
        raise ComparisonError(
            "the models know different classes",
            expected=", ".join(names),
            received=", ".join(received),
            remedy="compare models of one task",
        )
    return [part.sort_values("image", kind="stable") for part in tables_by_seed(table)]


def _require_same(first: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise unless two sorted parts describe the same images, each once."""
    if list(first["image"]) != list(other["image"]):
        ours, theirs = set(first["image"]), set(other["image"])
        example = next(iter(sorted(ours ^ theirs)), "an image scored twice by one seed")
        raise ComparisonError(
            "the predictions are of different images",
            expected=f"the same {len(ours)} images, each once per seed",
            received=f"{len(ours - theirs)} missing and {len(theirs - ours)} further ones,"
            f" such as {example}",
            remedy="compare models of the same data, split and magnification",
        )
    for column, meaning in (("y_true", "true class"), ("accession", "accession")):
        differs = first[column].to_numpy() != other[column].to_numpy()
        if differs.any():
            row = int(differs.argmax())
            raise ComparisonError(
                f"two tables disagree on the {meaning} of an image",
                expected=f"{first[column].iloc[row]} for {first['image'].iloc[row]}",
                received=str(other[column].iloc[row]),
                remedy="compare models of the same task, grouping and version of the data",
            )
