"""Neighbouring records of a journal, as one call to MLflow takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from breakhis_search.tracking.record_file import Record

MAX_ENTITIES = 1000
"""Of params, tags and metrics together in one call, as MLflow limits it."""

_MAX_PARAMS = _MAX_TAGS = 100  # in one call
_MAX_VALUE_LENGTH = 6000  # of a param or a tag


@dataclass
class RecordBatch:
    """Neighbouring records of params, tags and metrics, which one call can send.

    Attributes:
        params: By name.
        tags: By name; the latest value counts.
        metrics: (name, value, time in ms, step).
        last: The last record of the batch.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    last: Record | None = None

    def takes(self, record: Record) -> bool:
        """Add a record if it is of such a kind; tell whether it is."""
        body = record.body
        if record.kind == "params":
            self.params |= body["params"]
        elif record.kind == "tags":
            self.tags |= body["tags"]
        elif record.kind == "metrics":
            at = (body["time_ms"], body["step"])
            self.metrics += [(name, value, *at) for name, value in body["metrics"].items()]
        else:
            return False
        self.last = record
        return True

    def leave_out(self, told: set[tuple[str, int]]) -> None:
        """Leave out metrics that have a value at their step already."""
        if told:
            self.metrics = [m for m in self.metrics if (m[0], m[3]) not in told]

    def parts(self) -> Iterator[dict[str, list[Any]]]:
        """Yield arguments of ``log_batch`` within MLflow's limits."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(k, v[:_MAX_VALUE_LENGTH]) for k, v in self.params.items()]
        tags = [RunTag(k, v) for k, v in shortened(self.tags).items()]
        metrics = [Metric(*metric) for metric in self.metrics]
        while params or tags or metrics:
            few = {"params": params[:_MAX_PARAMS], "tags": tags[:_MAX_TAGS]}
            room = MAX_ENTITIES - len(few["params"]) - len(few["tags"])
            yield {**few, "metrics": metrics[:room]}
            params, tags = params[_MAX_PARAMS:], tags[_MAX_TAGS:]
            metrics = metrics[room:]


def shortened(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with values no longer than MLflow takes."""
    return {k: str(v)[:_MAX_VALUE_LENGTH] for k, v in tags.items()}
