"""What a search tried, from the runs of its trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from breakhis_search.tracking import keys


@dataclass(frozen=True)
class SearchFacts:
    """What was tried.

    Attributes:
        tried: Hyperparameter → each value it had → in how many trials; values as MLflow keeps them.
        ended: When its last trial ended, UTC; ``None`` while one is under way, or without any.
    """

    tried: Mapping[str, Mapping[str, int]]
    ended: datetime | None


def read_search_facts(
    client: Any, experiment_id: str, study_uid: str, *, until_ms: int
) -> SearchFacts:
    """Return what the trials of a study's search were.

    Args:
        client: An MLflow client.
        experiment_id: Where they are.
        study_uid: Of the study; nothing is found for an empty one.
        until_ms: Later trials do not count, milliseconds since 1970: a study may have gone on.
    """
    if not study_uid:
        return SearchFacts({}, None)
    tried: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    ends: list[int | None] = []
    for run in _trials(client, experiment_id, study_uid, until_ms):
        ends.append(run.info.end_time)
        for name, value in run.data.params.items():
            tried[name][value] += 1
    known = [end for end in ends if end is not None]
    finished = bool(ends) and len(known) == len(ends)
    return SearchFacts(
        tried={name: dict(values) for name, values in sorted(tried.items())},
        ended=datetime.fromtimestamp(max(known) / 1000, UTC) if finished else None,
    )


def _trials(client: Any, experiment_id: str, study_uid: str, until_ms: int) -> Iterator[Any]:
    condition = (
        f"tags.`{keys.ROLE}` = '{keys.ROLE_TRIAL}' and tags.`{keys.STUDY_UID}` = '{study_uid}'"
        f" and attributes.start_time <= {until_ms}"
    )
    token = None
    while True:
        page = client.search_runs([experiment_id], filter_string=condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
