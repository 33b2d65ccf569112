"""What a search tried, from the runs of its trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from breakhis_search.tracking import keys
from breakhis_search.tracking.stored_runs import read_runs


@dataclass(frozen=True)
class SearchFacts:
    """What was tried.

    Attributes:
        tried: Hyperparameter → each value it had → in how many trials; values as MLflow keeps them.
        ended: When its last trial ended, UTC; ``None`` while one is under way, or without any.
    """

    tried: Mapping[str, Mapping[str, int]]
    ended: datetime | None


def read_search_facts(client: Any, study_uid: str, *, until_ms: int) -> SearchFacts:
    """Return what the trials of a study's search were.

    Args:
        client: An MLflow client.
        study_uid: Of the study; nothing is found for an empty one.
        until_ms: Later trials do not count, milliseconds since 1970: a study may have gone on.
    """
    if not study_uid:
        return SearchFacts({}, None)
    tried: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    ends: list[int | None] = []
    tags = {keys.ROLE: keys.ROLE_TRIAL, keys.STUDY_UID: study_uid}
    for run in read_runs(client, tags, metrics=()):
        if run.started_ms > until_ms:
            continue
        ends.append(run.ended_ms)
        for name, value in run.params.items():
            tried[name][value] += 1
    known = [end for end in ends if end is not None]
    finished = bool(ends) and len(known) == len(ends)
    return SearchFacts(
        tried={name: dict(values) for name, values in sorted(tried.items())},
        ended=datetime.fromtimestamp(max(known) / 1000, UTC) if finished else None,
    )
