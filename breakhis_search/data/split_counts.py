"""How many patients and images of every type stand on each side of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from breakhis_search.data.protocol import IntArray, Split
from breakhis_search.data.taxonomy import LABELS, TUMOR_TYPES

COLUMNS: tuple[str, ...] = (*(t.code for t in TUMOR_TYPES), *LABELS, "all")
"""The columns of a count: types by their code in taxonomy order, labels, everything."""


def parts_of(split: Split) -> Iterator[tuple[str, IntArray]]:
    """Yield name and row positions of every side: all, the sealed test, then fold by fold."""
    yield "all", np.arange(len(split.table))
    yield "sealed test", split.test
    for number, fold in enumerate(split.folds):
        yield f"fold {number} training", fold.train
        yield f"fold {number} validation", fold.validation
        if len(fold.official_test):
            yield f"fold {number} official test", fold.official_test


def count_images(split: Split) -> pd.DataFrame:
    """Return images per side (rows) and type, label or all (columns), int64."""
    return _count(split, "path")


def count_patients(split: Split) -> pd.DataFrame:
    """Return accessions per side (rows) and type, label or all (columns), int64.

    An accession with tumours of two types counts under both, and once under ``all``.
    """
    return _count(split, "accession")


def _count(split: Split, unit: str) -> pd.DataFrame:
    rows = {name: _row(split.table.iloc[where], unit) for name, where in parts_of(split)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).astype("int64")


def _row(images: pd.DataFrame, unit: str) -> list[int]:
    types = [images.loc[images["type"] == t.name, unit].nunique() for t in TUMOR_TYPES]
    labels = [images.loc[images["label"] == label, unit].nunique() for label in LABELS]
    return [*types, *labels, images[unit].nunique()]
