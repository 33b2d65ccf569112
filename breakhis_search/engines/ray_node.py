"""One worker on a node of a Ray cluster: what runs inside a Ray actor.

The actor is a small supervisor of its own (:mod:`.local`) with one worker process and, since
journals are on the node's disk, one courier. What they say is kept for the driver to fetch. When
the actor's process dies, Ray starts it anew, here or on another node, and its trial goes on from
its last epoch.
"""

from __future__ import annotations

import hashlib
import os
import queue
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from breakhis_search.durability import replace_file
from breakhis_search.engines import messages as m
from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.local import Supervisor
from breakhis_search.engines.memory import memory_share_gb
from breakhis_search.engines.shipping import fetch
from breakhis_search.engines.worker_process import Forwarded, work
from breakhis_search.errors import BreakhisSearchError, NotDeliveredError
from breakhis_search.settings import Settings, read_settings, without_secrets
from breakhis_search.study.storage import StudyVersion
from breakhis_search.workflow.outcome import RunOutcome
from breakhis_search.workflow.preparation import Watcher

_LONGEST_WAIT_S = 2.0


@dataclass(frozen=True)
class NodeOrder:
    """What a node is told.

    Attributes:
        assignment: For its worker, with the paths of the driver's machine.
        study: Text of the study file.
        data: Folder of the data on the driver's machine; ``None`` for the demo, which every node
            draws itself.
        host: The driver's machine.
        environment: Variables to set: addresses of servers, names and passwords.
        beside: Workers on a node, this one included, as many as they are shared out to.
    """

    assignment: Assignment
    study: str
    data: Path | None
    host: str
    environment: Mapping[str, str]
    beside: int = 1


class RayNode:
    """The actor.

    Args:
        order: What to do.
        source: Handle of the :class:`.source.Source`.
        target: What the worker process does.
    """

    def __init__(self, order: NodeOrder, source: Any, target: Callable[..., None] = work) -> None:
        self._order, self._source, self._target = order, source, target
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._supervisor: Supervisor | None = None
        self._is_stopped = False

    def run(self) -> Any:
        """Work until nothing is left, or it is told to stop; return how it ended, as a message."""
        os.environ.update(self._order.environment)
        try:
            assignment = self.at_home()
            self._supervisor = Supervisor([assignment], self._watcher(), self._target)
            if self._is_stopped:
                return m.Interrupted()
            return m.Ended(self._outcome(self._supervisor))
        except KeyboardInterrupt:
            return m.Interrupted()
        except (BreakhisSearchError, OSError) as error:
            return m.Failed(error)
        except Exception as error:  # noqa: BLE001 - in full in Ray's log, in one line on the screen
            sys.stderr.write(without_secrets(traceback.format_exc()))
            return m.Broken(without_secrets(f"{type(error).__name__}: {error}"))

    def _outcome(self, supervisor: Supervisor) -> RunOutcome | None:
        """Run; records that MLflow did not take stay here where the study can go on without."""
        try:
            return supervisor.run()
        except NotDeliveredError as error:
            if self._order.assignment.leads:
                raise
            self._said.put(m.Said(f"{error.what}; they wait on {socket.gethostname()}"))
            return None

    def hear(self) -> list[Any]:
        """Return what was said since the last call, waiting a moment for something."""
        said = []
        try:
            said.append(self._said.get(timeout=_LONGEST_WAIT_S))
            while True:
                said.append(self._said.get_nowait())
        except queue.Empty:
            return said

    def stop(self) -> None:
        """Let the worker leave its work for the next run; ``run`` then returns."""
        self._is_stopped = True
        if self._supervisor is not None:
            self._supervisor.ask_to_stop()

    def _watcher(self) -> Watcher:
        return Watcher(
            say=lambda text: self._said.put(m.Said(text)),
            progress=lambda *so_far: self._said.put(m.Progressed(*so_far)),
            search=Forwarded(self._said.put),
            confirm_slow=None,
            opened=self._opened,
        )

    def _opened(self, version: StudyVersion) -> None:
        """Keep the study where it outlives this node before anyone learns of it.

        Ray builds a lost actor anew from the order it had when there was no study yet: a request
        for a new one would open another.
        """
        import ray

        self._said.put(m.Ready(ray.get(self._source.open.remote(version))))

    def _joining(self, assignment: Assignment) -> Assignment:
        """The assignment for the study that this run is at, if there is one by now."""
        import ray

        version = ray.get(self._source.opened.remote())
        return assignment if version is None else assignment.joining(version)

    def at_home(self) -> Assignment:
        """The assignment with the places of this node."""
        order, assignment = self._order, self._joining(self._order.assignment)
        is_driver = socket.gethostname() == order.host
        settings = assignment.settings if is_driver else places_here(assignment.settings)
        folder = settings.state_dir / "nodes"
        folder.mkdir(parents=True, exist_ok=True)
        # Several studies may be run from one folder at once.
        digest = hashlib.sha256(order.study.encode()).hexdigest()[:16]
        study = folder / f"{digest}-{assignment.number}.yaml"
        replace_file(study, order.study)
        request = replace(assignment.request, study=str(study))
        if not is_driver:
            request = replace(
                request,
                data=self._found_or_fetched("data", order.data or request.data, settings),
                weights_dir=self._found_or_fetched("weights", request.weights_dir, settings),
            )
        return replace(
            assignment,
            request=request,
            settings=settings,
            log=settings.log_dir / assignment.log.name,
            memory_gb=memory_share_gb(order.beside),
        )

    def _found_or_fetched(self, what: str, folder: Path | None, settings: Settings) -> Path | None:
        """A folder of the driver's machine: where it is here too, or a copy of it."""
        if folder is None or os.access(folder, os.R_OK | os.X_OK):
            return folder
        if what == "data" and settings.data_root is not None:
            return settings.data_root
        import ray

        name, listing = ray.get(self._source.listing.remote(what))
        self._said.put(m.Said(f"fetching {what} for {socket.gethostname()}"))
        return fetch(
            listing,
            lambda names: ray.get(self._source.read.remote(what, list(names))),
            settings.cache_dir / "fetched" / name,
        )


def places_here(settings: Settings) -> Settings:
    """Return settings of another machine's run with the places of this one.

    What is on servers stays; journals and logs get a folder of this machine's own, also where
    several see the same home; caches, data and downloaded weights are where this machine has them.
    Checkpoints stay where they are, too, so that nodes that share a folder share them; only those
    in a home that is not here move with it.
    """
    here = read_settings()
    # Another user's folder is none to work in, and asking whether it is one may be forbidden.
    has_home = os.access(settings.home, os.W_OK | os.X_OK)
    home = settings.home if has_home else here.cache_dir / "home"
    state_dir = replace(settings, state_dir=home / "mlruns").node_dir
    checkpoints = settings.checkpoints
    if not has_home and checkpoints.is_relative_to(settings.state_dir):
        checkpoints = state_dir / checkpoints.relative_to(settings.state_dir)
    return replace(
        settings,
        home=home,
        state_dir=state_dir,
        cache_dir=here.cache_dir,
        data_root=here.data_root,
        keras_home=here.keras_home,
        checkpoints=checkpoints,
    )
