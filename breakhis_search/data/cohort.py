"""Which images enter a study, with the patient group each belongs to.

Three facts of BreaKHis are settled here, before anything is split:

* slide 14-13412 is filed under two types with the same pictures: no type can be learnt from it,
  so multiclass leaves it out and binary keeps one copy;
* pixel-identical images elsewhere join the groups they stand in;
* the group is the accession (one patient's case), or the slide for comparability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from breakhis_search.data.taxonomy import TUMOR_TYPES, Task, class_names

GroupBy = Literal["accession", "slide"]
TYPE_ORDER = {t.name: i for i, t in enumerate(TUMOR_TYPES)}
"""Tumour types by name → their place in taxonomy order."""


def select_cohort(table: pd.DataFrame, task: Task, *, group_by: GroupBy) -> pd.DataFrame:
    """Return the rows of a task with columns ``patient``, ``group``, ``y`` and ``contradictory``.

    Args:
        table: A catalog table (one row per image).
        task: ``binary`` or ``multiclass``.
        group_by: What a group is before pixel-identical images join groups.
    """
    cohort = table.copy()
    cohort["patient"] = join_groups(cohort, "accession")
    cohort["group"] = (
        cohort["patient"] if group_by == "accession" else join_groups(cohort, group_by)
    )
    cohort["contradictory"] = cohort["slide"].isin(contradictory_slides(cohort))
    cohort = cohort[_keep(cohort, task)]
    names = class_names(task)
    classes = cohort["label"] if task == "binary" else cohort["type"]
    cohort["y"] = classes.map({name: i for i, name in enumerate(names)}).astype("int64")
    return cohort.sort_values("path").reset_index(drop=True)


def contradictory_slides(table: pd.DataFrame) -> list[str]:
    """Return the slide ids that are filed under more than one type (14-13412 in the full set)."""
    types = table.groupby("slide")["type"].nunique()
    return sorted(types.index[types > 1])


def _keep(cohort: pd.DataFrame, task: Task) -> pd.Series[bool]:
    """Rows to keep: a contradictory slide goes (multiclass) or keeps its first type (binary)."""
    keep = ~cohort["contradictory"]
    if task == "multiclass":
        return keep
    for _, rows in cohort[cohort["contradictory"]].groupby("slide"):
        if rows["label"].nunique() == 1:
            first = min(rows["type"].unique(), key=TYPE_ORDER.__getitem__)
            keep.loc[rows.index[rows["type"] == first]] = True
    return keep


def join_groups(table: pd.DataFrame, group_by: GroupBy) -> pd.Series[str]:
    """Return the group of each row: its accession or slide, joined where pictures are identical.

    A joined group is named by its members, ``14-1+14-2``.
    """
    member = table[group_by].astype(str)
    parent = {name: name for name in member.unique()}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    pixels = table["pixel_sha256"]
    repeated = (pixels != "") & pixels.duplicated(keep=False)
    for _, names in member[repeated].groupby(pixels[repeated]):
        first, *others = sorted({root(name) for name in names})
        for other in others:
            parent[other] = first
    members: dict[str, list[str]] = {}
    for name in sorted(parent):
        members.setdefault(root(name), []).append(name)
    return member.map(lambda name: "+".join(members[root(name)]))


def restrict_magnification(cohort: pd.DataFrame, magnification: int | None) -> pd.DataFrame:
    """Return the rows of one magnification, or all rows for ``None``."""
    if magnification is None:
        return cohort
    return cohort[cohort["magnification"] == magnification].reset_index(drop=True)


@dataclass(frozen=True)
class GroupFacts:
    """What splitting needs to know of one group.

    Attributes:
        images: Its number of images.
        types: The tumour types it holds, in taxonomy order.
        labels: Its labels.
        contradictory: Whether one of its slides is filed under two types.
    """

    images: int
    types: tuple[str, ...]
    labels: frozenset[str]
    contradictory: bool


def group_facts(cohort: pd.DataFrame) -> dict[str, GroupFacts]:
    """Return the facts of every group of a cohort, sorted by name."""
    return {
        str(name): GroupFacts(
            images=len(rows),
            types=tuple(sorted(set(rows["type"]), key=TYPE_ORDER.__getitem__)),
            labels=frozenset(rows["label"]),
            contradictory=bool(rows["contradictory"].any()),
        )
        for name, rows in cohort.groupby("group", sort=True)
    }


def type_group_counts(facts: Mapping[str, GroupFacts]) -> Counter[str]:
    """Return how many groups hold each type, without groups whose type is contradictory."""
    return Counter(t for group in facts.values() if not group.contradictory for t in group.types)


def rarest_type(types: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the type that the fewest groups hold; the first in taxonomy order among equals.

    >>> rarest_type(["fibroadenoma", "phyllodes_tumor"], {"fibroadenoma": 7, "phyllodes_tumor": 3})
    'phyllodes_tumor'
    """
    return min(types, key=lambda t: (counts.get(t, 0), TYPE_ORDER[t]))
