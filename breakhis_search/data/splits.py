"""Patient-disjoint splits: a sealed test, and folds or a hold-out over the development patients.

The sealed test is a pure function of the data set's list of groups: the same for both tasks, every
magnification, any number of folds and any seed, so that nothing a study varies can move it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.data.cohort import (
    GroupBy,
    GroupFacts,
    group_facts,
    restrict_magnification,
    select_cohort,
    type_group_counts,
)
from breakhis_search.data.taxonomy import LABELS, TUMOR_TYPES, Task
from breakhis_search.errors import SplitError, SplitLeakageError

ProtocolKind = Literal["folds", "holdout", "image"]
SingleTypePolicy = Literal["error", "train_only", "drop"]

TEST_SHARE = 0.2  # of the groups of each type
MIN_GROUPS_OF_A_TYPE_IN_TEST = 3  # fewer, and sealing one would leave one or none to learn from
MIN_PATIENTS_OF_A_LABEL = 5  # fewer, and a sealed test would say nothing about that label

IntArray = npt.NDArray[np.int64]
_TYPE_ORDER = {t.name: i for i, t in enumerate(TUMOR_TYPES)}


@dataclass(frozen=True)
class Protocol:
    """How a study is scored.

    Attributes:
        kind: ``folds``; ``holdout`` (validation accessions are named); ``image`` (leaky).
        folds: Number of folds (``folds`` and ``image``).
        seed: Varies the folds, never the sealed test.
        validation_accessions: Accessions of the hold-out, with or without the year (``14-3411``).
        group_by: ``accession`` (patients) or ``slide``.
        sealed_test: ``auto``, or ``none`` to train and validate on every patient.
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
    """Row positions in :attr:`Split.table`: int64 arrays, disjoint by group."""

    train: IntArray
    validation: IntArray


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


def choose_sealed_test(table: pd.DataFrame) -> SealedTest:
    """Return the groups to seal away: about 20 % of each type's, chosen by a hash of their names.

    A type with fewer than three groups never enters it, nor does a group whose slide is filed
    under two types. With fewer than five patients of a label there is no sealed test.

    Args:
        table: A catalog table, all magnifications.
    """
    # Patients are sealed whole, also where folds are made by slide. The binary cohort keeps every
    # group; the contradictory one is barred below for both tasks.
    facts = group_facts(select_cohort(table, "binary", group_by="accession"))
    present = [t.name for t in TUMOR_TYPES if any(t.name in g.types for g in facts.values())]
    for label in LABELS:
        patients = sum(label in group.labels for group in facts.values())
        if patients < MIN_PATIENTS_OF_A_LABEL:
            reason = f"only {patients} {label} patients, {MIN_PATIENTS_OF_A_LABEL} are needed"
            return SealedTest(frozenset(), reason, tuple(present))
    counts = type_group_counts(facts)
    chosen: set[str] = set()
    for name, groups in _eligible_groups(facts, counts).items():
        quota = max(1, round(TEST_SHARE * counts[name]))
        chosen.update(sorted(groups, key=_sealing_order)[:quota])
    tested = {t for g in chosen for t in facts[g].types}
    absent = tuple(name for name in present if name not in tested)
    if not chosen:
        return SealedTest(frozenset(), "no type has three patients", absent)
    return SealedTest(frozenset(chosen), None, absent)


def _eligible_groups(
    facts: Mapping[str, GroupFacts], counts: Mapping[str, int]
) -> dict[str, list[str]]:
    """Groups that may be sealed, under their rarest type."""
    eligible: dict[str, list[str]] = {}
    for name, group in facts.items():
        enough = all(counts.get(t, 0) >= MIN_GROUPS_OF_A_TYPE_IN_TEST for t in group.types)
        if enough and not group.contradictory:
            eligible.setdefault(_rarest(group.types, counts), []).append(name)
    return eligible


def _rarest(types: Sequence[str], counts: Mapping[str, int]) -> str:
    return min(types, key=lambda t: (counts.get(t, 0), _TYPE_ORDER[t]))


def _sealing_order(group: str) -> str:
    return hashlib.sha256(f"breakhis_search sealed test v1/{group}".encode()).hexdigest()


def split_patients(
    table: pd.DataFrame, task: Task, protocol: Protocol, *, magnification: int | None = None
) -> Split:
    """Return the split of a study; the same arguments always give the same split.

    Args:
        table: A catalog table, all magnifications.
        task: ``binary`` or ``multiclass``.
        protocol: How the study is scored.
        magnification: Keep only images of this magnification.

    Raises:
        SplitError: There are too few patients for the protocol, with the remedy.
        SplitLeakageError: A group would stand on both sides (a defect, or a hold-out that names
            a sealed patient).
    """
    sealed = (
        choose_sealed_test(table)
        if protocol.sealed_test == "auto"
        else SealedTest(frozenset(), "switched off (protocol.sealed_test: none)", ())
    )
    cohort = select_cohort(table, task, group_by=protocol.group_by)
    cohort = restrict_magnification(cohort, magnification)
    if cohort.empty:
        raise SplitError(
            "no image is left for the study",
            expected=f"images at {magnification}X",
            remedy="choose a magnification the data has (`data describe` lists them)",
        )
    cohort, train_only, notes = _settle_single_types(cohort, task, protocol, sealed)
    sealed_rows = cohort["patient"].isin(sealed.groups).to_numpy()
    folds = _folds(cohort, sealed_rows, train_only, protocol)
    split = Split(
        table=cohort,
        test=np.flatnonzero(sealed_rows),
        folds=folds,
        sealed=sealed,
        digest=_digest(cohort, sealed_rows, folds, protocol),
        notes=(*_sealed_notes(sealed), *notes),
    )
    check_disjoint(split, protocol)
    return split


def check_disjoint(split: Split, protocol: Protocol) -> None:
    """Raise :class:`SplitLeakageError` if a group stands on two sides of any split.

    The ``image`` protocol leaks between training and validation by definition; the sealed test
    is checked for it all the same.
    """
    group = split.table["group"].to_numpy()
    patient = split.table["patient"].to_numpy()
    test = set(patient[split.test])
    for number, fold in enumerate(split.folds):
        train, validation = set(group[fold.train]), set(group[fold.validation])
        seen = set(patient[fold.train]) | set(patient[fold.validation])
        sides = [("the sealed test", test & seen)]
        if protocol.kind != "image":
            sides.append(("validation", train & validation))
        for side, shared in sides:
            if shared:
                raise SplitLeakageError(
                    f"fold {number}: patients of {side} are also trained or validated on",
                    expected="disjoint patients",
                    received=", ".join(sorted(shared)[:5]),
                    remedy="name development accessions only, or report this as a defect",
                )


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
    if protocol.on_single_accession_type == "error":
        raise SplitError(
            f"{', '.join(single)}: one {protocol.group_by} only outside the sealed test",
            expected=f"two {protocol.group_by}s of every type, to train on one and score the other",
            remedy="add patients, or --set protocol.on_single_accession_type=train_only"
            " (trained, never scored) or =drop",
        )
    if protocol.on_single_accession_type == "drop":
        kept = cohort[~cohort["type"].isin(single)].reset_index(drop=True)
        return kept, frozenset(), (f"left out (one patient only): {', '.join(single)}",)
    alone = frozenset(name for name, group in facts.items() if set(single) & set(group.types))
    note = f"trained but never scored (one patient only): {', '.join(single)}"
    return cohort, alone, (note,)


def _sealed_notes(sealed: SealedTest) -> tuple[str, ...]:
    if sealed.absent_because:
        return (f"no sealed test: {sealed.absent_because}",)
    if sealed.types_without_test:
        return (f"no sealed patient has: {', '.join(sealed.types_without_test)}",)
    return ()


def _folds(
    cohort: pd.DataFrame,
    sealed_rows: npt.NDArray[np.bool_],
    train_only: frozenset[str],
    protocol: Protocol,
) -> tuple[Fold, ...]:
    development = np.flatnonzero(~sealed_rows)
    if protocol.kind == "holdout":
        return (_holdout(cohort, development, protocol),)
    if protocol.kind == "image":
        number = _image_fold_numbers(cohort, development, protocol)
    else:
        number = _group_fold_numbers(cohort, development, train_only, protocol)
    return tuple(
        Fold(train=development[number != f], validation=development[number == f])
        for f in range(protocol.folds)
    )


def _holdout(cohort: pd.DataFrame, development: IntArray, protocol: Protocol) -> Fold:
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
    validation = np.flatnonzero(cohort["group"].isin(groups).to_numpy())
    fold = Fold(train=np.setdiff1d(development, validation), validation=validation)
    _require_labels(cohort, fold, "hold-out")
    return fold


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
    """Fold of each image by group; −1 for groups that are only trained on.

    Greedy: rarest type first, large groups first (by powers of two, so that the seed has a say),
    each to the fold with the fewest images of its type, then of its label, then of all.
    """
    rows = cohort.iloc[development]
    facts = group_facts(rows)
    free = {name: group for name, group in facts.items() if name not in train_only}
    _require_groups(free, protocol)
    fold_of = {**dict.fromkeys(train_only, -1), **_deal(free, rows, protocol)}
    numbers: IntArray = np.array([fold_of[name] for name in rows["group"]], dtype=np.int64)
    for f in range(protocol.folds):
        fold = Fold(development[numbers != f], development[numbers == f])
        _require_labels(cohort, fold, f"fold {f}")
    return numbers


def _deal(
    facts: Mapping[str, GroupFacts], rows: pd.DataFrame, protocol: Protocol
) -> dict[str, int]:
    """Fold of every group."""
    counts = type_group_counts(facts)
    sizes = Counter(zip(rows["group"], rows["type"], strict=True))
    load = np.zeros((protocol.folds, len(TUMOR_TYPES)), dtype=np.int64)
    fold_of = {}
    for name in sorted(facts, key=lambda n: _dealing_order(n, facts[n], counts, protocol.seed)):
        rarest = _TYPE_ORDER[_rarest(facts[name].types, counts)]
        fold = min(range(protocol.folds), key=lambda f: _burden(load[f], rarest, f))
        fold_of[name] = fold
        for type_name in facts[name].types:
            load[fold, _TYPE_ORDER[type_name]] += sizes[name, type_name]
    return fold_of


def _dealing_order(
    name: str, group: GroupFacts, counts: Mapping[str, int], seed: int
) -> tuple[int, int, int, str]:
    """Rarity of its type, size class, then a hash that varies by seed."""
    rarest = _rarest(group.types, counts)
    shuffle = hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
    return (counts.get(rarest, 0), _TYPE_ORDER[rarest], -int(math.log2(group.images)), shuffle)


def _burden(load: IntArray, type_index: int, fold: int) -> tuple[int, int, int, int]:
    label = TUMOR_TYPES[type_index].label
    same_label = [i for i, t in enumerate(TUMOR_TYPES) if t.label == label]
    return (int(load[type_index]), int(load[same_label].sum()), int(load.sum()), fold)


def _require_groups(facts: Mapping[str, GroupFacts], protocol: Protocol) -> None:
    """Every label needs a group for every fold."""
    for label in LABELS:
        groups = sum(label in group.labels for group in facts.values())
        if groups < protocol.folds:
            raise SplitError(
                f"too few {label} {protocol.group_by}s for {protocol.folds} folds",
                expected=f"at least {protocol.folds} outside the sealed test",
                received=str(groups),
                remedy=f"--set protocol.folds={max(2, groups)}, or add patients",
            )


def _require_labels(cohort: pd.DataFrame, fold: Fold, name: str) -> None:
    """Both labels must be trained on and scored, or the fold says nothing."""
    label = cohort["label"].to_numpy()
    for side, rows in (("training", fold.train), ("validation", fold.validation)):
        missing = set(LABELS) - set(label[rows])
        if missing:
            raise SplitError(
                f"{name}: no {', '.join(sorted(missing))} image in {side}",
                expected="benign and malignant patients on both sides",
                remedy="use fewer folds, another protocol.seed, or other accessions",
            )


def _digest(
    cohort: pd.DataFrame,
    sealed_rows: npt.NDArray[np.bool_],
    folds: tuple[Fold, ...],
    protocol: Protocol,
) -> str:
    paths = cohort["path"].to_numpy()
    content = {
        "protocol": protocol.kind,
        "group_by": protocol.group_by,
        "test": sorted(paths[sealed_rows].tolist()),
        "folds": [
            [sorted(paths[f.train].tolist()), sorted(paths[f.validation].tolist())] for f in folds
        ],
        "y": dict(zip(paths.tolist(), cohort["y"].tolist(), strict=True)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
