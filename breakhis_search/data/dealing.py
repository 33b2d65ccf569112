"""Groups dealt to folds like cards: the rarest types first, each to the fold that has least."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from breakhis_search.data.cohort import TYPE_ORDER, GroupFacts, rarest_type, type_group_counts
from breakhis_search.data.protocol import IntArray
from breakhis_search.data.taxonomy import TUMOR_TYPES


def deal_groups(
    facts: Mapping[str, GroupFacts],
    rows: pd.DataFrame,
    *,
    folds: int,
    seed: int,
    allowed: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """Return the fold of every group.

    Greedy: rarest type first, large groups first (by powers of two, so that the seed has a say),
    each to the fold with the fewest images of its type, then of its label, then of all.

    Args:
        facts: The groups to deal.
        rows: Their images, with ``group`` and ``type``.
        folds: Number of folds.
        seed: Another seed, another deal.
        allowed: Folds a group may go to; all of them where it says nothing.
    """
    counts = type_group_counts(facts)
    sizes = Counter(zip(rows["group"], rows["type"], strict=True))
    load = np.zeros((folds, len(TUMOR_TYPES)), dtype=np.int64)
    fold_of = {}
    for name in sorted(facts, key=lambda n: _dealing_order(n, facts[n], counts, seed)):
        rarest = TYPE_ORDER[rarest_type(facts[name].types, counts)]
        choice = (allowed or {}).get(name, range(folds))
        fold = min(choice, key=lambda f: _burden(load[f], rarest, f))
        fold_of[name] = fold
        for type_name in facts[name].types:
            load[fold, TYPE_ORDER[type_name]] += sizes[name, type_name]
    return fold_of


def _dealing_order(
    name: str, group: GroupFacts, counts: Mapping[str, int], seed: int
) -> tuple[int, int, int, str]:
    """Rarity of its type, size class, then a hash that varies by seed."""
    rarest = rarest_type(group.types, counts)
    shuffle = hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
    return (counts.get(rarest, 0), TYPE_ORDER[rarest], -int(math.log2(group.images)), shuffle)


def _burden(load: IntArray, type_index: int, fold: int) -> tuple[int, int, int, int]:
    label = TUMOR_TYPES[type_index].label
    same_label = [i for i, t in enumerate(TUMOR_TYPES) if t.label == label]
    return (int(load[type_index]), int(load[same_label].sum()), int(load.sum()), fold)
