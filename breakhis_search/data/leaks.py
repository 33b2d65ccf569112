"""Guards against leaks: what is trained on must tell nothing about what is scored.

Four ways a score becomes too good are caught, each by a guard that raises
:class:`~breakhis_search.errors.SplitLeakageError`:

=====================================================  ============================================
leak                                                   guard
=====================================================  ============================================
a patient (or slide) in training and in validation     `check_fold`
one picture, under one path or two, on both sides      `check_fold`, `check_images_once`
a patient of the sealed test among the search's rows   `check_split`, `check_development_only`
rows drawn again (oversampled) before the split        `check_images_once`, `check_fold`
=====================================================  ============================================

`check_split` looks at a whole split when it is made, `check_training` once more at the very rows a
fold is about to train on, whoever put them together.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from breakhis_search.data.protocol import IntArray, Protocol, SealedTest, Split
from breakhis_search.errors import SplitLeakageError

_FIRST_SHOWN = 5


def may_leak(protocol: Protocol) -> bool:
    """Return whether the protocol puts images of one patient on both sides, by definition."""
    return protocol.kind == "image"


def check_split(split: Split, protocol: Protocol) -> None:
    """Raise if anything leaks between the sides of a split.

    The ``image`` protocol leaks between training and validation by definition; its images are
    still counted once each, and the sealed test is checked all the same.

    Raises:
        SplitLeakageError: A patient, slide or picture stands on two sides, or a row stands twice.
    """
    check_images_once(split.table)
    for number, fold in enumerate(split.folds):
        name = f"fold {number}"
        check_fold(
            split.table,
            fold.train,
            fold.validation,
            name=name,
            patients_may_leak=may_leak(protocol),
        )
        seen = np.concatenate([fold.train, fold.validation])
        _check_sealed_apart(split, seen, name)
        both = np.intersect1d(seen, fold.official_test)
        if len(both):
            raise _leak(f"{name}: images of its official test are trained on", _paths(split, both))


def check_training(
    split: Split,
    train: IntArray,
    validation: IntArray,
    *,
    n_images: int,
    patients_may_leak: bool,
) -> None:
    """Raise if a fold must not be trained on these rows.

    Args:
        split: What the rows are positions in: development images alone.
        train: Rows to train on.
        validation: Rows to score, may be empty.
        n_images: Length of the image array that the rows point into.
        patients_may_leak: Whether the protocol leaks patients by definition.

    Raises:
        SplitLeakageError: It would leak, or pictures and rows do not belong together.
    """
    if n_images != len(split.table):
        raise _leak(
            "images and rows do not belong together",
            [f"{n_images} images for {len(split.table)} rows"],
        )
    check_images_once(split.table)
    check_development_only(split.table, split.sealed)
    check_fold(split.table, train, validation, name="training", patients_may_leak=patients_may_leak)


def check_images_once(table: pd.DataFrame) -> None:
    """Raise if an image has more than one row: the trace of resampling before the split.

    Raises:
        SplitLeakageError: With the images.
    """
    repeated = table["path"].duplicated()
    if repeated.any():
        raise _leak(
            "images stand in the table more than once, as after resampling",
            table.loc[repeated, "path"].unique(),
            remedy="split first; `sampling/strategy` then resamples training folds alone",
        )


def check_development_only(table: pd.DataFrame, sealed: SealedTest) -> None:
    """Raise if a sealed patient is among the rows of a search.

    Args:
        table: Rows whose pixels or features are about to be used, with ``patient``.
        sealed: Who is sealed away.

    Raises:
        SplitLeakageError: With the patients.
    """
    shared = sealed.groups & set(table["patient"])
    if shared:
        raise _leak(
            "patients of the sealed test are among the images of the search",
            shared,
            remedy="give the search Split.development_only()",
        )


def check_fold(
    table: pd.DataFrame,
    train: IntArray,
    validation: IntArray,
    *,
    name: str,
    patients_may_leak: bool,
) -> None:
    """Raise if the two sides of a fold share a group or a picture, or hold a row twice.

    Args:
        table: The images, with ``group``, ``path`` and ``pixel_sha256``.
        train: Row positions of one side.
        validation: Row positions of the other.
        name: What the fold is called in messages.
        patients_may_leak: Whether sharing groups is the protocol's definition.

    Raises:
        SplitLeakageError: With what is shared.
    """
    rows = np.concatenate([train, validation])
    if len(np.unique(rows)) < len(rows):
        positions, counts = np.unique(rows, return_counts=True)
        raise _leak(
            f"{name}: images stand in it more than once, as after resampling",
            table["path"].iloc[positions[counts > 1]],
            remedy="split first; `sampling/strategy` then resamples training folds alone",
        )
    if patients_may_leak:
        return
    # Pictures join groups in data.cohort; this holds if that was by-passed.
    pixels = table["pixel_sha256"]
    twice = set(pixels.iloc[train]) & set(pixels.iloc[validation]) - {""}
    if twice:
        copies = table.iloc[rows][pixels.iloc[rows].isin(twice).to_numpy()]
        raise _leak(f"{name}: one picture is trained on and scored", copies["path"])
    shared = set(table["group"].iloc[train]) & set(table["group"].iloc[validation])
    if shared:
        raise _leak(f"{name}: patients of validation are also trained on", shared)


def _check_sealed_apart(split: Split, seen: IntArray, name: str) -> None:
    for column, what in (("patient", "patients"), ("pixel_sha256", "pictures")):
        values = split.table[column]
        shared = set(values.iloc[seen]) & set(values.iloc[split.test]) - {""}
        if shared:
            raise _leak(
                f"{name}: {what} of the sealed test are also trained or validated on", shared
            )


def _paths(split: Split, rows: IntArray) -> Collection[str]:
    return list(split.table["path"].iloc[rows])


def _leak(
    what: str,
    shared: Collection[str],
    *,
    remedy: str = "name development accessions only, or report this as a defect",
) -> SplitLeakageError:
    names = sorted(map(str, shared))
    more = f" and {len(names) - _FIRST_SHOWN} more" if len(names) > _FIRST_SHOWN else ""
    return SplitLeakageError(
        what,
        expected="nothing on two sides",
        received=", ".join(names[:_FIRST_SHOWN]) + more,
        remedy=remedy,
    )
