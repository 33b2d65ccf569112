"""What a split is: how a study is scored, who is sealed away, and the rows of every fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.data.cohort import GroupBy

ProtocolKind = Literal["folds", "holdout", "image", "official"]
SingleTypePolicy = Literal["error", "train_only", "drop"]

IntArray = npt.NDArray[np.int64]


def no_rows() -> IntArray:
    """Return no row positions, int64 [0]."""
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Protocol:
    """How a study is scored.

    Attributes:
        kind: ``folds``; ``holdout`` (validation accessions are named); ``image`` (leaky);
            ``official`` (Spanhol's five folds, for comparison with the literature).
        folds: Number of folds (``folds`` and ``image``; ``official`` has those of its files).
        seed: Varies the folds, never the sealed test.
        validation_accessions: Accessions of the hold-out, with or without the year (``14-3411``).
        group_by: ``accession`` (patients) or ``slide``.
        sealed_test: ``auto``, or ``none`` to train and validate on every patient (``official``
            never has one).
        on_single_accession_type: What to do with a type that one development patient has alone.
    """

    kind: ProtocolKind = "folds"
    folds: int = 3
    seed: int = 0
    validation_accessions: tuple[str, ...] = ()
    group_by: GroupBy = "accession"
    sealed_test: Literal["auto", "none"] = "auto"
    on_single_accession_type: SingleTypePolicy = "error"


@dataclass(frozen=True)
class SealedTest:
    """The groups the search never sees.

    Attributes:
        groups: Their names; empty when there is no sealed test.
        absent_because: Why there is none, in words; ``None`` when there is one.
        types_without_test: Types no sealed patient has.
    """

    groups: frozenset[str]
    absent_because: str | None
    types_without_test: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """Row positions in :attr:`Split.table`, int64.

    Attributes:
        train: What is trained on.
        validation: What is scored out-of-fold; disjoint from ``train`` by group.
        official_test: The test of an official fold (``official`` only, else empty). It shares no
            image with the others, but patients: :func:`~breakhis_search.data.official.leaks_of`.
    """

    train: IntArray
    validation: IntArray
    official_test: IntArray = field(default_factory=no_rows)


@dataclass(frozen=True)
class Split:
    """Everything a study trains, validates and finally tests on.

    Attributes:
        table: The cohort at the study's magnification, RangeIndex.
        test: Row positions of the sealed test, int64.
        folds: Training and validation rows of each fold.
        sealed: The sealed test, in groups.
        digest: sha256 of what is where (paths, folds, test).
        notes: What a reader must know, in words.
    """

    table: pd.DataFrame
    test: IntArray
    folds: tuple[Fold, ...]
    sealed: SealedTest
    digest: str
    notes: tuple[str, ...]

    @property
    def development(self) -> IntArray:
        """Row positions of all development images, int64."""
        return np.setdiff1d(np.arange(len(self.table)), self.test)

    def development_only(self) -> Split:
        """Return this split without the rows of the sealed test, positions renumbered.

        It is what a search gets: pixels that are not in the table are never decoded. ``test`` is
        empty, ``sealed`` still names who is sealed, and the digest is that of the whole split.
        """
        kept = self.development
        position = np.full(len(self.table), -1, dtype=np.int64)
        position[kept] = np.arange(len(kept))
        folds = tuple(
            Fold(position[f.train], position[f.validation], position[f.official_test])
            for f in self.folds
        )
        table = self.table.iloc[kept].reset_index(drop=True)
        return replace(self, table=table, test=no_rows(), folds=folds)
