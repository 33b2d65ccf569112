"""Who is sealed away: a pure function of the data set's list of groups.

It is the same for both tasks, every magnification, any number of folds and any seed, so that
nothing a study varies can move it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd

from breakhis_search.data.cohort import (
    GroupFacts,
    group_facts,
    rarest_type,
    select_cohort,
    type_group_counts,
)
from breakhis_search.data.protocol import SealedTest
from breakhis_search.data.taxonomy import LABELS, TUMOR_TYPES

TEST_SHARE = 0.2  # of the groups of each type
MIN_GROUPS_OF_A_TYPE_IN_TEST = 3  # fewer, and sealing one would leave one or none to learn from
MIN_PATIENTS_OF_A_LABEL = 5  # fewer, and a sealed test would say nothing about that label


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


def no_sealed_test(reason: str) -> SealedTest:
    """Return that nobody is sealed away, and why."""
    return SealedTest(frozenset(), reason, ())


def _eligible_groups(
    facts: Mapping[str, GroupFacts], counts: Mapping[str, int]
) -> dict[str, list[str]]:
    """Groups that may be sealed, under their rarest type."""
    eligible: dict[str, list[str]] = {}
    for name, group in facts.items():
        enough = all(counts.get(t, 0) >= MIN_GROUPS_OF_A_TYPE_IN_TEST for t in group.types)
        if enough and not group.contradictory:
            eligible.setdefault(rarest_type(group.types, counts), []).append(name)
    return eligible


def _sealing_order(group: str) -> str:
    return hashlib.sha256(f"breakhis_search sealed test v1/{group}".encode()).hexdigest()
