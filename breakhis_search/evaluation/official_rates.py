"""Recognition rates on the official tests, as the literature reports them.

F. A. Spanhol, L. S. Oliveira, C. Petitjean, L. Heutte (IEEE TBME 63(7), 2016) report, for each
magnification, mean and standard deviation over their five folds of

* the *image* recognition rate: the share of the test images that are right;
* the *patient* recognition rate: the mean over patients of the share of a patient's images that
  are right. Their patients are the 82 slide folders, so a patient here is a slide under a type, not
  an accession as everywhere else: the rates could not be compared otherwise.

Some accessions stand in training and test of the same fold
(:func:`breakhis_search.data.official.leaks_of`), so these rates are for comparison with published
ones and say less about a new patient than the out-of-fold scores do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import check_predictions, logits_of

RATES: tuple[str, ...] = ("image", "patient")
"""The two recognition rates, in the order of the rows."""


def official_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Return both recognition rates per magnification and fold, with mean and deviation.

    Args:
        table: Predictions of the official tests, any number of folds and seeds: within a fold and
            seed a predictions table, while an image may be tested in several folds. ``fold`` counts
            from 0, as in a split. Rates of several seeds are averaged within their fold.

    Returns:
        One row per magnification and rate, sorted: ``magnification`` (int), ``rate`` (``image`` or
        ``patient``), ``fold_1`` … (float in [0, 1], numbered as the published folds; NaN where the
        fold tests nothing at that magnification), ``mean`` and ``sd`` over the folds (n − 1 in the
        denominator; NaN for a single fold).

    Raises:
        DataError: The table is empty, or the part of a fold is not a predictions table.
    """
    if table.empty:
        raise DataError(
            "there are no predictions of official tests", expected="one row per image and fold"
        )
    for _, part in table.groupby("fold", sort=True):
        check_predictions(part)
    measured = pd.DataFrame(_measure(table), columns=["magnification", "rate", "fold", "value"])
    rates = measured.pivot_table(index=["magnification", "rate"], columns="fold", values="value")
    values = rates.to_numpy(dtype=np.float64)
    rates.columns = pd.Index([f"fold_{int(number) + 1}" for number in rates.columns.to_numpy()])
    rates["mean"] = np.nanmean(values, axis=1)
    rates["sd"] = [_deviation(row) for row in values]
    return rates.reset_index()


def _measure(table: pd.DataFrame) -> Iterator[tuple[int, str, int, float]]:
    """Yield both rates of every magnification, fold and seed."""
    frame = table[["fold", "seed", "magnification", "type", "slide"]].copy()
    frame["right"] = logits_of(table).argmax(axis=1) == table["y_true"].to_numpy()
    for _, part in frame.groupby(["magnification", "fold", "seed"]):
        magnification, fold = int(part["magnification"].iloc[0]), int(part["fold"].iloc[0])
        yield magnification, "image", fold, float(part["right"].mean())
        shares = part.groupby(["type", "slide"])["right"].mean()
        yield magnification, "patient", fold, float(shares.mean())


def _deviation(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
