"""How well each tumour type is recognised at each magnification, with what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from breakhis_search.data.taxonomy import MAGNIFICATIONS, TUMOR_TYPES
from breakhis_search.evaluation.predictions import probabilities_of, tables_by_seed
from breakhis_search.evaluation.samples import LEVELS, Level, check_not_empty, decisions_of

ALL = "all"
"""The margin: every magnification, or every type."""

COLUMNS: tuple[str, ...] = (
    "type",
    "magnification",
    "images",
    "patients",
    "image_accuracy",
    "patient_accuracy",
    "patient_mean_logit_accuracy",
    "patient_majority_vote_accuracy",
    "patient_recognition_rate",
    "mean_probability_true",
)
"""The columns of the table of cells."""

_IN = "/"
_PATIENT_LEVELS = tuple(level for level in LEVELS if level != "image")


def cell_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per tumour type and magnification that has images, and all margins.

    Args:
        table: A predictions table of any number of seeds; numbers are means over them.

    Returns:
        Columns :data:`COLUMNS`: ``type`` and ``magnification`` (text; ``all`` on a margin),
        ``images`` and ``patients`` (int: how many stand behind the numbers), ``image_accuracy``
        (share of images that are right), ``patient_accuracy``, ``patient_mean_logit_accuracy`` and
        ``patient_majority_vote_accuracy`` (share of patients that are right at the levels of
        :mod:`.samples`, from their images in the cell), ``patient_recognition_rate`` (mean over
        patients of their share of right images, Spanhol et al. 2016) and ``mean_probability_true``
        (mean probability of the true class). Types in the order of the taxonomy, magnifications
        ascending, margins last.

    Raises:
        DataError: The table is empty.
    """
    check_not_empty(table)
    by_image = _by_image(table)
    patients = _patients_right(table)
    rows = [
        _row(
            by_image[_in_cell(by_image, tumor_type, magnification)],
            patients.get((tumor_type, magnification), {}),
            tumor_type,
            magnification,
        )
        for tumor_type in _present([t.name for t in TUMOR_TYPES], by_image["type"])
        for magnification in _present([str(m) for m in MAGNIFICATIONS], by_image["magnification"])
    ]
    cells = pd.DataFrame(rows, columns=list(COLUMNS))
    return cells[cells["images"] > 0].reset_index(drop=True)


def _by_image(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image: whose it is, how often it is right and p(true), over the seeds."""
    probabilities, truth = probabilities_of(table), table["y_true"].to_numpy(np.int64)
    scored = table[["image", "type", "magnification", "accession", "y_true"]].assign(
        right=(probabilities.argmax(axis=1) == truth).astype(np.float64),
        p_true=probabilities[np.arange(len(truth)), truth],
    )
    keys = ["image", "type", "magnification", "accession", "y_true"]
    means = scored.groupby(keys, sort=True)[["right", "p_true"]].mean().reset_index()
    return means.assign(magnification=means["magnification"].astype(str))


def _present(known: list[str], found: pd.Series) -> list[str]:
    """Return the known names that occur, in their order, and the margin."""
    occurring = set(found)
    return [name for name in known if name in occurring] + [ALL]


def _in_cell(by_image: pd.DataFrame, tumor_type: str, magnification: str) -> pd.Series:
    of_type = (by_image["type"] == tumor_type) | (tumor_type == ALL)
    return of_type & ((by_image["magnification"] == magnification) | (magnification == ALL))


def _patients_right(table: pd.DataFrame) -> dict[tuple[str, str], dict[Level, float]]:
    """Return the share of right patients by cell and patient level, the mean over the seeds."""
    shares: dict[tuple[str, str], dict[Level, list[float]]] = {}
    magnification = table["magnification"].astype(str)
    names = magnification.unique()
    parts = [((name,), table[magnification == name]) for name in names]
    # Of a single magnification the margin is the cell itself.
    parts = [*parts, ((ALL,), table)] if len(names) > 1 else [((*names, ALL), table)]
    for margins, part in parts:
        for seed in tables_by_seed(part):
            for level in _PATIENT_LEVELS:
                for tumor_type, share in _shares_right(seed, level):
                    for name in margins:
                        cell = shares.setdefault((tumor_type, name), {})
                        cell.setdefault(level, []).append(share)
    return {
        cell: {level: float(np.mean(found)) for level, found in levels.items()}
        for cell, levels in shares.items()
    }


def _shares_right(table: pd.DataFrame, level: Level) -> Iterator[tuple[str, float]]:
    """Yield the share of right patients of every type, and of all together."""
    everybody = decisions_of(table, level)
    yield ALL, float((everybody.y_true == everybody.y_pred).mean())
    # A patient with tumours of two types counts in both cells, with the images of each.
    by_type = table.assign(accession=table["type"].astype(str) + _IN + table["accession"])
    decided = decisions_of(by_type, level)
    right = pd.Series(decided.y_true == decided.y_pred)
    types = pd.Series([str(name).partition(_IN)[0] for name in decided.accession])
    for tumor_type, share in right.groupby(types).mean().items():
        yield str(tumor_type), float(share)


def _row(
    images: pd.DataFrame, patients: Mapping[Level, float], tumor_type: str, magnification: str
) -> tuple[object, ...]:
    shares = images.groupby(["accession", "y_true"])["right"].mean()
    by_level = (patients.get(level, np.nan) for level in _PATIENT_LEVELS)
    scores = (images["right"].mean(), *by_level, shares.mean(), images["p_true"].mean())
    return (tumor_type, magnification, len(images), len(shares), *scores)
