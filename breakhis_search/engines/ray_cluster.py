"""Workers on the nodes of a Ray cluster, seen from the process that the user started.

Ray places the actors, gives them their share of a GPU, and starts those anew whose node is lost.
What they work on is in two servers: Optuna's database and MLflow.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from breakhis_search.engines import messages as m
from breakhis_search.engines.assignment import Assignment, cpu_threads, gpu_memory_share
from breakhis_search.engines.ray_connection import connected
from breakhis_search.engines.ray_node import NodeOrder, RayNode
from breakhis_search.engines.shipping import Shelf
from breakhis_search.engines.source import Source
from breakhis_search.errors import EngineError
from breakhis_search.settings import Settings, forwarded_environment
from breakhis_search.workflow.outcome import RunOutcome
from breakhis_search.workflow.preparation import Watcher

_STOP_WITHIN_S = 60.0
_LOST_AFTER_S = 60.0
"""A worker answers every two seconds; one that is silent for so long has no place to run in."""

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Fleet:
    """How many workers there are, and what each takes of a node.

    Attributes:
        workers: How many.
        gpus: Of each, a fraction where several share one; 0 without a GPU.
        cpus: Of each.
    """

    workers: int
    gpus: float
    cpus: int

    @classmethod
    def of(
        cls, resources: dict[str, float], nodes: int, workers: int | None, per_gpu: int
    ) -> Fleet:
        """Return the fleet for a cluster: one worker per GPU share, or one per node without any.

        Args:
            resources: What the cluster has, as Ray tells it.
            nodes: How many it has.
            workers: How many are wanted, or ``None``.
            per_gpu: How many share a GPU.

        >>> Fleet.of({"GPU": 4.0, "CPU": 64.0}, 2, None, 2)
        Fleet(workers=8, gpus=0.5, cpus=8)
        >>> Fleet.of({"CPU": 16.0}, 2, None, 1)
        Fleet(workers=2, gpus=0.0, cpus=8)
        """
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        count = workers or (gpus * per_gpu if gpus else nodes)
        share = 1 / per_gpu if gpus else 0.0
        return cls(count, share, max(1, cpus // max(count, 1)))


class RayEngine:
    """Runs a study on a Ray cluster.

    Args:
        first: What every worker is to do.
        study: The study file.
        data: Folder of its images; ``None`` for the demo.
        watcher: Whoever watches.
        address: Of the cluster; ``None`` starts one on this machine.
        workers: How many; ``None`` for one per GPU share, or per node.
        per_gpu: Workers that share a GPU.
        node: The actor's class.
    """

    def __init__(
        self,
        first: Assignment,
        *,
        study: Path,
        data: Path | None,
        watcher: Watcher,
        address: str | None,
        workers: int | None = None,
        per_gpu: int = 1,
        node: type = RayNode,
    ) -> None:
        self._first, self._study, self._data = first, study, data
        self._watcher, self._address = watcher, address
        self._workers, self._per_gpu = workers, per_gpu
        self._node = node

    def run(self) -> RunOutcome | None:
        """Run until the study has been led to its end, or nothing is left to train.

        Raises:
            KeyboardInterrupt: The user stopped it; what was at work is left for the next run.
            BreakhisSearchError: What a worker could not go on for.
        """
        with connected(self._address) as ray:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            require_servers(self._first.settings, len(nodes))
            fleet = Fleet.of(ray.cluster_resources(), len(nodes), self._workers, self._per_gpu)
            self._watcher.say(
                f"Ray: {fleet.workers} workers on {len(nodes)} node{'s' * (len(nodes) > 1)}"
            )
            crew = _Crew(ray, self._orders(fleet, len(nodes)), self._source(ray), fleet, self._node)
            try:
                return self._lead(crew)
            except BaseException:  # a Ctrl-C too: no actor goes on without its driver
                crew.drain()
                raise

    def _orders(self, fleet: Fleet, nodes: int) -> list[NodeOrder]:
        beside = -(-fleet.workers // nodes)
        share = gpu_memory_share(self._per_gpu) if fleet.gpus else cpu_threads(fleet.cpus)
        text = self._study.read_text(encoding="utf-8")
        return [
            NodeOrder(
                replace(
                    self._first,
                    number=number,
                    environment=share,
                    log=self._first.log.with_name(f"{self._first.log.stem}-{number}.log"),
                    leads=self._first.leads and number == 0,
                    asks_before_hours=False,
                ),
                text,
                self._data,
                socket.gethostname(),
                forwarded_environment(),
                beside,
            )
            for number in range(fleet.workers)
        ]

    def _source(self, ray: Any) -> Any:
        """The actor that has the files, on this machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        places = {"data": self._data, "weights": self._first.request.weights_dir}
        shelves = {what: Shelf(folder) for what, folder in places.items() if folder is not None}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        source = ray.remote(Source).options(num_cpus=0, scheduling_strategy=here)
        return source.remote(shelves)

    def _lead(self, crew: _Crew) -> RunOutcome | None:
        """Start the first worker, and the others once there is a study to join; hear them all."""
        crew.start(0)
        outcome: RunOutcome | None = None
        while crew.is_at_work:
            for number, message in crew.hear():
                if isinstance(message, m.Ready):
                    crew.open(message)
                elif isinstance(message, m.Ended):
                    outcome = message.outcome or outcome
                else:
                    self._heard(number, message)
            for number in crew.forget_lost():
                self._watcher.say(f"worker {number} found no place to run in; all is done without")
        return outcome

    def _heard(self, number: int, message: Any) -> None:
        match message:
            case m.Said(text):
                self._watcher.say(f"worker {number}: {text}")
            case m.Progressed(what, done, total):
                self._watcher.progress(what, done, total)
            case m.Observed(event, positional, named):
                observer = self._watcher.search
                observer.of_worker(number)
                getattr(observer, event)(*positional, **named)
            case m.Failed(error):
                raise error
            case m.Broken(what):
                raise EngineError(
                    f"worker {number} ran into a defect: {what}",
                    remedy="see the traceback in the log of its actor (`ray logs`)",
                )
            case m.Interrupted():
                raise KeyboardInterrupt


class _Crew:
    """The actors of a run, and what is awaited of them."""

    def __init__(
        self, ray: Any, orders: list[NodeOrder], source: Any, fleet: Fleet, node: type
    ) -> None:
        self._ray, self._orders, self._source = ray, orders, source
        # Whatever takes it away, a node or its memory, the worker comes back and joins the study.
        self._kind = ray.remote(node).options(
            num_gpus=fleet.gpus,
            num_cpus=1,  # so that a worker whose node is lost finds room on another
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=4,
            scheduling_strategy="SPREAD",
        )
        self._actors: dict[int, Any] = {}
        self._runs: dict[Any, int] = {}
        self._hearings: dict[Any, int] = {}
        self._heard_at: dict[int, float] = {}
        self._has_ended = False

    @property
    def is_at_work(self) -> bool:
        """Whether a worker has not ended yet."""
        return bool(self._runs)

    def start(self, number: int) -> None:
        """Start a worker."""
        actor = self._kind.remote(self._orders[number], self._source)
        self._actors[number] = actor
        self._runs[actor.run.remote()] = number
        self._hearings[actor.hear.remote()] = number
        self._heard_at[number] = time.monotonic()

    def forget_lost(self) -> list[int]:
        """Wait no longer for workers without a place once another found nothing left to do."""
        now = time.monotonic()
        silent = [n for n in self._runs.values() if now - self._heard_at[n] > _LOST_AFTER_S]
        if not self._has_ended or not silent:
            return []
        self._runs = {run: n for run, n in self._runs.items() if n not in silent}
        self._hearings = {ref: n for ref, n in self._hearings.items() if n not in silent}
        return silent

    def open(self, ready: m.Ready) -> None:
        """Let the others join the study, if they have not."""
        for number in range(len(self._orders)):
            if number not in self._actors:
                order = self._orders[number]
                joined = replace(order, assignment=order.assignment.joining(ready.version))
                self._orders[number] = joined
                self.start(number)

    def hear(self) -> Iterator[tuple[int, Any]]:
        """Yield what comes within a moment, as number of the worker and message."""
        ready, _ = self._ray.wait(
            [*self._runs, *self._hearings], num_returns=1, timeout=_LOOK_EVERY_S
        )
        for reference in ready:
            number = self._hearings.pop(reference, None)
            if number is None:
                yield from self._ended(reference)
                continue
            self._heard_at[number] = time.monotonic()
            for message in self._ray.get(reference):
                yield number, message
            if number in self._runs.values():
                self._hearings[self._actors[number].hear.remote()] = number

    def _ended(self, reference: Any) -> Iterator[tuple[int, Any]]:
        number = self._runs.pop(reference)
        self._has_ended = True
        actor = self._actors[number]
        # Its last words: those that an answer holds which is on its way here, and the rest.
        under_way = [ref for ref, n in self._hearings.items() if n == number]
        for hearing in (*under_way, actor.hear.remote()):
            self._hearings.pop(hearing, None)
            for message in self._ray.get(hearing):
                yield number, message
        yield number, self._ray.get(reference)
        self._ray.kill(actor)

    def drain(self) -> None:
        """Let every worker leave its work for the next run; end those that do not."""
        for number in self._runs.values():
            self._actors[number].stop.remote()
        deadline = time.monotonic() + _STOP_WITHIN_S
        while self._runs and time.monotonic() < deadline:
            ready, _ = self._ray.wait(list(self._runs), num_returns=1, timeout=_LOOK_EVERY_S)
            for reference in ready:
                self._runs.pop(reference)
        for actor in self._actors.values():
            with suppress(Exception):  # it is gone already
                self._ray.kill(actor)


def require_servers(settings: Settings, nodes: int) -> None:
    """Refuse files as stores where several machines have to see them.

    Raises:
        EngineError: There is more than one node, and a store is a file.
    """
    files = {
        "BREAKHIS_STUDIES_URI": settings.studies_uri.startswith("sqlite"),
        "MLFLOW_TRACKING_URI": settings.has_local_store,
    }
    wanting = [name for name, is_file in files.items() if is_file]
    if nodes > 1 and wanting:
        raise EngineError(
            "several machines cannot share a database file",
            expected=f"servers in {' and '.join(wanting)}",
            received=f"{nodes} nodes",
            remedy="docs/scale.md says how; docker-compose.yml has both servers",
        )
