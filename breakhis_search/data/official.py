"""The official protocol: Spanhol's five folds, with validation carved out by accession.

F. A. Spanhol et al. (IEEE TBME 63(7), 2016) drew five random trainings and tests of about 70 to 30
per cent, by slide folder. Here

* every group is dealt to one validation set V_f; fold f trains on its official training part
  without V_f and validates on V_f, so that every image has at most one out-of-fold score and no
  patient stands on both sides of what is selected by;
* the official test of fold f is a third set. It shares no image with the other two, but patients,
  as slides of one accession were drawn apart: `leaks_of` names them. Its rates are for comparison
  with the literature and for nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.data.cohort import group_facts
from breakhis_search.data.dealing import deal_groups
from breakhis_search.data.official_files import OfficialFolds
from breakhis_search.data.protocol import Fold, IntArray, Split
from breakhis_search.errors import SplitError

BoolArray = npt.NDArray[np.bool_]

_FIRST_SHOWN = 3


def check_official_images(
    official: OfficialFolds, table: pd.DataFrame, *, on_missing: Literal["error", "skip"]
) -> tuple[str, ...]:
    """Return what a reader must know of how folds and data fit together, in words.

    Args:
        official: The folds.
        table: The catalog table: every usable image.
        on_missing: Whether images that the folds name and the data lacks are an error, or are left
            out (``data.on_bad_image``).

    Raises:
        SplitError: A fold leaves an image of the data out, or names one that the data lacks.
    """
    images = set(image_names(table))
    for number, sides in enumerate(official.sides, start=1):
        unnamed = images - set(sides)
        if unnamed:
            raise SplitError(
                f"fold {number} of {official.source} leaves out images of the data",
                expected="every image in training or test",
                received=f"nothing for {_first(unnamed)}",
                remedy="move what is not BreaKHis out of the folder, or use protocol.kind: folds",
            )
    missing = set().union(*official.sides) - images
    if not missing:
        return ()
    if on_missing == "error":
        raise SplitError(
            f"{official.source} names images that the data lacks",
            expected="the whole data set",
            received=f"no {_first(missing)}",
            remedy="unpack the whole archive; --set data.on_bad_image=skip goes on without them",
        )
    note = (
        f"{len(missing):,} images of the official folds are not in the data: the rates cannot be"
        " compared with the literature"
    )
    return (note,)


def official_folds(
    cohort: pd.DataFrame, official: OfficialFolds, *, train_only: frozenset[str], seed: int
) -> tuple[Fold, ...]:
    """Return the official folds over a cohort, each with its validation set carved out.

    Args:
        cohort: The study's images.
        official: The folds; they name every image of the cohort.
        train_only: Groups that are never validated on.
        seed: Varies the validation sets.
    """
    is_test = _is_test(cohort, official)
    number = _validation_numbers(cohort, is_test, train_only, seed)
    return tuple(
        Fold(
            train=np.flatnonzero(~in_test & (number != f)),
            validation=np.flatnonzero(~in_test & (number == f)),
            official_test=np.flatnonzero(in_test),
        )
        for f, in_test in enumerate(is_test)
    )


def image_names(table: pd.DataFrame) -> list[str]:
    """Return the file name of every row, which is what the fold files go by."""
    return [path.rsplit("/", 1)[-1] for path in table["path"]]


def leaks_of(split: Split) -> tuple[tuple[str, ...], ...]:
    """Return, per fold, the patients that its official test shares with the rest, sorted."""
    patient = split.table["patient"].to_numpy()
    return tuple(
        tuple(
            sorted(
                set(patient[np.concatenate([fold.train, fold.validation])])
                & set(patient[fold.official_test])
            )
        )
        for fold in split.folds
    )


def leaks_in_words(split: Split) -> str | None:
    """Return the patients that the official tests leak, fold by fold; ``None`` if none is."""
    found = [
        f"official fold {number}: {', '.join(shared)}"
        for number, shared in enumerate(leaks_of(split), start=1)
        if shared
    ]
    return "; ".join(found) or None


def official_notes(split: Split, official: OfficialFolds) -> tuple[str, ...]:
    """Return what a reader of an official study must know, in words."""
    source = f"official folds from {official.source} (official fold 1 is fold 0 here)"
    notes = [f"{source}: their tests serve comparison with the literature only"]
    leaks = leaks_in_words(split)
    if leaks:
        notes.append(f"patients on both sides of an official test: {leaks}")
    scored = sum(len(fold.validation) for fold in split.folds)
    if scored < len(split.table):
        notes.append(
            f"out-of-fold predictions cover {scored:,} of {len(split.table):,} images: the others"
            " are tested, not trained on, in the fold that would validate them"
        )
    return tuple(notes)


def _is_test(cohort: pd.DataFrame, official: OfficialFolds) -> BoolArray:
    """Whether each image is in the test of each fold, bool [folds, n]."""
    names = image_names(cohort)
    return np.array([[sides[name] == "test" for name in names] for sides in official.sides])


def _validation_numbers(
    cohort: pd.DataFrame, is_test: BoolArray, train_only: frozenset[str], seed: int
) -> IntArray:
    """Fold that may validate each image; −1 for groups that are only trained on."""
    facts = {n: g for n, g in group_facts(cohort).items() if n not in train_only}
    fold_of = dict.fromkeys(train_only, -1) | deal_groups(
        facts,
        cohort,
        folds=len(is_test),
        seed=seed,
        allowed=_least_tested(cohort, is_test),
    )
    return np.array([fold_of[name] for name in cohort["group"]], dtype=np.int64)


def _least_tested(cohort: pd.DataFrame, is_test: BoolArray) -> dict[str, tuple[int, ...]]:
    """Folds that test the fewest images of a group: validating it there scores the most of it."""
    tested = pd.DataFrame(is_test.T).groupby(cohort["group"].to_numpy()).sum()
    return {
        str(name): tuple(int(f) for f in np.flatnonzero(row == row.min()))
        for name, row in zip(tested.index, tested.to_numpy(), strict=True)
    }


def _first(names: Collection[str]) -> str:
    """The first few names in words."""
    shown = ", ".join(sorted(names)[:_FIRST_SHOWN])
    more = len(names) - _FIRST_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
