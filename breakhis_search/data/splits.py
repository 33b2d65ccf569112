"""Patient-disjoint splits: a sealed test, and the folds of a protocol over everybody else.

`split_patients` puts together what its neighbours know: who enters (:mod:`cohort`), who is sealed
away (:mod:`sealing`), who validates which fold (:mod:`dealing`, :mod:`official`), and that nothing
leaks (:mod:`leaks`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from breakhis_search.data.cohort import (
    GroupFacts,
    group_facts,
    restrict_magnification,
    select_cohort,
    type_group_counts,
)
from breakhis_search.data.dealing import deal_groups
from breakhis_search.data.leaks import check_split
from breakhis_search.data.official import official_folds, official_notes
from breakhis_search.data.official_files import OfficialFolds
from breakhis_search.data.protocol import Fold, IntArray, Protocol, SealedTest, Split
from breakhis_search.data.sealing import choose_sealed_test, no_sealed_test
from breakhis_search.data.taxonomy import LABELS, TUMOR_TYPES, Task
from breakhis_search.errors import SplitError

__all__ = [
    "Fold",
    "IntArray",
    "Protocol",
    "SealedTest",
    "Split",
    "choose_sealed_test",
    "split_patients",
]


def split_patients(
    table: pd.DataFrame,
    task: Task,
    protocol: Protocol,
    *,
    magnification: int | None = None,
    official: OfficialFolds | None = None,
) -> Split:
    """Return the split of a study; the same arguments always give the same split.

    Args:
        table: A catalog table, all magnifications.
        task: ``binary`` or ``multiclass``.
        protocol: How the study is scored.
        magnification: Keep only images of this magnification.
        official: The official folds; for ``kind: official``, and only there.

    Raises:
        SplitError: There are too few patients for the protocol, with the remedy.
        SplitLeakageError: A patient, picture or row would stand on two sides (a defect, a table
            that was resampled, or a hold-out that names a sealed patient).
        ValueError: Official folds without ``kind: official``, or the other way round.
    """
    if (protocol.kind == "official") != (official is not None):
        raise ValueError("official folds are given for kind: official, and only there")
    sealed = _sealed_test(table, protocol)
    cohort = select_cohort(table, task, group_by=protocol.group_by)
    cohort = restrict_magnification(cohort, magnification)
    if cohort.empty:
        raise SplitError(
            "no image is left for the study",
            expected=f"images at {magnification}X",
            remedy="choose a magnification the data has (`data describe` lists them)",
        )
    cohort, train_only, notes = _settle_single_types(cohort, task, protocol, sealed)
    test = np.flatnonzero(cohort["patient"].isin(sealed.groups).to_numpy())
    folds = _folds(cohort, test, train_only, protocol, official)
    split = Split(
        table=cohort,
        test=test,
        folds=folds,
        sealed=sealed,
        digest=_digest(cohort, test, folds, protocol),
        notes=(*_sealed_notes(sealed), *notes, *_unlearnt_notes(cohort, folds, task)),
    )
    if official is not None:
        split = replace(split, notes=(*split.notes, *official_notes(split, official)))
    check_split(split, protocol)
    return split


def _sealed_test(table: pd.DataFrame, protocol: Protocol) -> SealedTest:
    if protocol.kind == "official":
        return no_sealed_test("the official protocol has none, each of its folds has its own test")
    if protocol.sealed_test == "none":
        return no_sealed_test("switched off (protocol.sealed_test: none)")
    return choose_sealed_test(table)


def _settle_single_types(
    cohort: pd.DataFrame, task: Task, protocol: Protocol, sealed: SealedTest
) -> tuple[pd.DataFrame, frozenset[str], tuple[str, ...]]:
    """Apply the policy for types that only one development group has (multiclass only)."""
    if task == "binary" or protocol.kind == "image":
        return cohort, frozenset(), ()
    facts = group_facts(cohort[~cohort["patient"].isin(sealed.groups)])
    counts = type_group_counts(facts)
    single = [t.name for t in TUMOR_TYPES if counts.get(t.name, 0) == 1]
    if not single:
        return cohort, frozenset(), ()
    alone = frozenset(name for name, group in facts.items() if set(single) & set(group.types))
    if protocol.on_single_accession_type == "error":
        free = {name: group for name, group in facts.items() if name not in alone}
        folds = min(protocol.folds, *(_groups_with(label, free) for label in LABELS))
        is_dealt = protocol.kind == "folds" and 2 <= folds < protocol.folds
        fewer = f", and --set protocol.folds={folds}" if is_dealt else ""
        raise SplitError(
            f"{', '.join(single)}: one {protocol.group_by} only outside the sealed test",
            expected=f"two {protocol.group_by}s of every type, to train on one and score the other",
            remedy="add patients, or --set protocol.on_single_accession_type=train_only"
            f" (trained, never scored) or =drop{fewer}",
        )
    if protocol.on_single_accession_type == "drop":
        kept = cohort[~cohort["type"].isin(single)].reset_index(drop=True)
        return kept, frozenset(), (f"left out (one patient only): {', '.join(single)}",)
    note = f"trained but never scored (one patient only): {', '.join(single)}"
    return cohort, alone, (note,)


def _sealed_notes(sealed: SealedTest) -> tuple[str, ...]:
    if sealed.absent_because:
        return (f"no sealed test: {sealed.absent_because}",)
    if sealed.types_without_test:
        return (f"no sealed patient has: {', '.join(sealed.types_without_test)}",)
    return ()


def _unlearnt_notes(cohort: pd.DataFrame, folds: tuple[Fold, ...], task: Task) -> tuple[str, ...]:
    """Types that a fold scores and cannot have learnt: all their patients validate it."""
    if task == "binary":
        return ()
    kind = cohort["type"]
    notes = []
    for number, fold in enumerate(folds):
        unlearnt = set(kind.iloc[fold.validation]) - set(kind.iloc[fold.train])
        if unlearnt:
            notes.append(f"fold {number} scores what it never trains on: {_in_order(unlearnt)}")
    return tuple(notes)


def _in_order(types: set[str]) -> str:
    return ", ".join(t.name for t in TUMOR_TYPES if t.name in types)


def _folds(
    cohort: pd.DataFrame,
    test: IntArray,
    train_only: frozenset[str],
    protocol: Protocol,
    official: OfficialFolds | None,
) -> tuple[Fold, ...]:
    """The folds of a protocol, each with both labels on both sides."""
    development = np.setdiff1d(np.arange(len(cohort)), test)
    if official is not None:
        folds = official_folds(cohort, official, train_only=train_only, seed=protocol.seed)
    elif protocol.kind == "holdout":
        folds = (_holdout(cohort, development, train_only, protocol),)
    elif protocol.kind == "image":
        number = _image_fold_numbers(cohort, development, protocol)
        folds = _by_number(development, number, protocol.folds)
    else:
        number = _group_fold_numbers(cohort, development, train_only, protocol)
        folds = _by_number(development, number, protocol.folds)
    for f, fold in enumerate(folds):
        _require_labels(cohort, fold, "hold-out" if protocol.kind == "holdout" else f"fold {f}")
    return folds


def _by_number(development: IntArray, number: IntArray, folds: int) -> tuple[Fold, ...]:
    """One fold per number: its images validate, all others train; −1 only trains."""
    return tuple(
        Fold(train=development[number != f], validation=development[number == f])
        for f in range(folds)
    )


def _holdout(
    cohort: pd.DataFrame, development: IntArray, train_only: frozenset[str], protocol: Protocol
) -> Fold:
    """The named accessions against the rest; every name must be there."""
    accession = cohort["accession"]
    known = set(accession)
    named: set[str] = set()
    for name in protocol.validation_accessions:
        matches = {a for a in known if name in (a, a.split("-", 1)[-1])}
        if not matches:
            raise SplitError(
                f"protocol.validation_accessions names {name!r}, which has no image here",
                expected="accessions of the data (`data describe --accessions` lists them)",
                received=name,
                remedy="correct the name, with or without the year",
            )
        named |= matches
    groups = set(cohort.loc[accession.isin(named), "group"])
    _require_scorable(groups & train_only, cohort)
    validation = np.flatnonzero(cohort["group"].isin(groups).to_numpy())
    return Fold(train=np.setdiff1d(development, validation), validation=validation)


def _require_scorable(groups: set[str], cohort: pd.DataFrame) -> None:
    """Who alone has a type must be trained on, so no hold-out can score them."""
    if groups:
        types = _in_order(set(cohort.loc[cohort["group"].isin(groups), "type"]))
        raise SplitError(
            f"protocol.validation_accessions names {', '.join(sorted(groups))}, the only one with"
            f" {types}, which protocol.on_single_accession_type: train_only keeps in training",
            expected="accessions whose types others have too",
            remedy="name other accessions, or --set protocol.on_single_accession_type=drop",
        )


def _image_fold_numbers(
    cohort: pd.DataFrame, development: IntArray, protocol: Protocol
) -> IntArray:
    """Fold of each image, classes spread evenly, patients ignored: the leaky protocol."""
    rng = np.random.default_rng(protocol.seed)
    y = cohort["y"].to_numpy()[development]
    number: IntArray = np.empty(len(development), dtype=np.int64)
    for c in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == c))
        number[members] = np.arange(len(members)) % protocol.folds
    return number


def _group_fold_numbers(
    cohort: pd.DataFrame,
    development: IntArray,
    train_only: frozenset[str],
    protocol: Protocol,
) -> IntArray:
    """Fold of each image by group; −1 for groups that are only trained on."""
    rows = cohort.iloc[development]
    free = {name: g for name, g in group_facts(rows).items() if name not in train_only}
    _require_groups(free, protocol)
    fold_of = dict.fromkeys(train_only, -1) | deal_groups(
        free, rows, folds=protocol.folds, seed=protocol.seed
    )
    return np.array([fold_of[name] for name in rows["group"]], dtype=np.int64)


def _require_groups(facts: Mapping[str, GroupFacts], protocol: Protocol) -> None:
    """Every label needs a group for every fold."""
    for label in LABELS:
        groups = _groups_with(label, facts)
        if groups < protocol.folds:
            raise SplitError(
                f"too few {label} {protocol.group_by}s for {protocol.folds} folds",
                expected=f"at least {protocol.folds} outside the sealed test",
                received=str(groups),
                remedy=f"--set protocol.folds={max(2, groups)}, or add patients",
            )


def _groups_with(label: str, facts: Mapping[str, GroupFacts]) -> int:
    return sum(label in group.labels for group in facts.values())


def _require_labels(cohort: pd.DataFrame, fold: Fold, name: str) -> None:
    """Both labels must be trained on and scored, or the fold says nothing."""
    label = cohort["label"].to_numpy()
    for side, rows in (("training", fold.train), ("validation", fold.validation)):
        missing = set(LABELS) - set(label[rows])
        if missing:
            raise SplitError(
                f"{name}: no {', '.join(sorted(missing))} image in {side}",
                expected="benign and malignant patients on both sides",
                remedy="use more patients, fewer folds, another protocol.seed or other accessions",
            )


def _digest(
    cohort: pd.DataFrame, test: IntArray, folds: tuple[Fold, ...], protocol: Protocol
) -> str:
    paths = cohort["path"].to_numpy()

    def names(rows: IntArray) -> list[str]:
        return sorted(paths[rows].tolist())

    content: dict[str, Any] = {
        "protocol": protocol.kind,
        "group_by": protocol.group_by,
        "test": names(test),
        "folds": [[names(f.train), names(f.validation)] for f in folds],
        "y": dict(zip(paths.tolist(), cohort["y"].tolist(), strict=True)),
    }
    if protocol.kind == "official":
        content["official_tests"] = [names(f.official_test) for f in folds]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
