"""Runs as MLflow holds them, thousands at once.

MLflow's client makes an object of every metric, parameter and tag, in its database layer and again
for its caller: 380,000 metrics of 2,000 trials take it longer than everything that is done with
them. Where the store is a database, the same rows are read as they are; a server is asked through
the client, and so is a database whose tables are not those of MLflow 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from breakhis_search.garbage import garbage_kept
from breakhis_search.tracking.store import DATABASES

_OURS = "breakhis-%"
"""Names of experiments of this program, as a pattern."""


@dataclass(frozen=True)
class StoredRun:
    """A run that was not deleted.

    Attributes:
        run_id: Its id.
        name: Its name.
        experiment_id: Where it is.
        status: ``RUNNING``, ``FINISHED``, ``KILLED`` or ``FAILED``.
        started_ms: When it began, milliseconds since 1970.
        ended_ms: When it ended; ``None`` while it runs.
        tags: All of them.
        params: All of them.
        metrics: The last value of each that was asked for.
    """

    run_id: str
    name: str
    experiment_id: str
    status: str
    started_ms: int
    ended_ms: int | None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def read_runs(
    client: Any, tags: Mapping[str, str], *, metrics: Sequence[str] = ("",)
) -> list[StoredRun]:
    """Return all runs of this program's experiments that have these tags, the newest first.

    Args:
        client: An MLflow client.
        tags: At least one, by name.
        metrics: What the metrics that are wanted begin with; by default all of them. A run has
            hundreds, and reading them is most of the time.
    """
    uri = client.tracking_uri
    if uri.startswith(DATABASES):
        try:
            return _from_tables(uri, tags, metrics)
        except sa.exc.DatabaseError:  # of another release, or away: then the client says so
            pass
    return list(_from_client(client, tags, metrics))


def _from_tables(uri: str, tags: Mapping[str, str], metrics: Sequence[str]) -> list[StoredRun]:
    conditions = [
        f"EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = :key_{n}"  # noqa: S608 - numbers
        f" AND t.value = :value_{n})"
        for n in range(len(tags))
    ]
    wanted = (  # what is put into it is numbered above
        "SELECT r.run_uuid, r.name, r.experiment_id, r.status, r.start_time, r.end_time FROM runs r"  # noqa: S608
        " JOIN experiments e ON e.experiment_id = r.experiment_id WHERE e.name LIKE :ours AND"
        " e.lifecycle_stage = 'active' AND r.lifecycle_stage = 'active' AND "
        + " AND ".join(conditions)
    )
    values: dict[str, str] = {"ours": _OURS}
    for number, (key, value) in enumerate(tags.items()):
        values |= {f"key_{number}": key, f"value_{number}": value}
    values |= {f"metric_{number}": f"{beginning}%" for number, beginning in enumerate(metrics)}
    begin_so = [f"x.key LIKE :metric_{number}" for number in range(len(metrics))]
    of_metrics = " OR ".join(begin_so) or "1 = 0"
    engine = sa.create_engine(uri, poolclass=sa.NullPool)
    with garbage_kept(), engine.connect() as connection:

        def rows(query: str) -> Any:
            return connection.execute(sa.text(query), values).fetchall()

        order = " ORDER BY r.start_time DESC, r.run_uuid"
        found = {
            run_id: StoredRun(run_id, name, str(experiment), status, began, ended)
            for run_id, name, experiment, status, began, ended in rows(wanted + order)
        }

        def all_of(columns: str, table: str, condition: str = "1 = 1") -> Iterator[Any]:
            for run_id, *row in rows(
                f"WITH wanted AS ({wanted}) SELECT x.run_uuid, {columns} FROM {table} x"  # noqa: S608
                f" JOIN wanted w ON w.run_uuid = x.run_uuid WHERE {condition}"
            ):
                if run_id in found:  # not begun since they were asked for: a search may be going on
                    yield found[run_id], *row

        for run, key, value in all_of("x.key, x.value", "tags"):
            run.tags[key] = value
        for run, key, value in all_of("x.key, x.value", "params"):
            run.params[key] = value
        last = all_of("x.key, x.value, x.is_nan", "latest_metrics", of_metrics)
        for run, key, value, is_nan in last:
            run.metrics[key] = float("nan") if is_nan else value
    return list(found.values())


def _from_client(
    client: Any, tags: Mapping[str, str], metrics: Sequence[str]
) -> Iterator[StoredRun]:
    experiments = [
        e.experiment_id for e in client.search_experiments(filter_string=f"name LIKE '{_OURS}'")
    ]
    condition = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    token = None
    with garbage_kept():
        while experiments:
            page = client.search_runs(experiments, filter_string=condition, page_token=token)
            for run in page:
                info, data = run.info, run.data
                yield StoredRun(
                    info.run_id,
                    info.run_name,
                    info.experiment_id,
                    info.status,
                    info.start_time,
                    info.end_time,
                    data.tags,
                    data.params,
                    {k: v for k, v in data.metrics.items() if k.startswith(tuple(metrics))},
                )
            token = page.token
            if not token:
                return
