"""Workers as actors of a real Ray cluster on this machine; the workers load no Keras."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from types import SimpleNamespace
from typing import Any

import pytest

from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.ray_cluster import RayEngine, require_servers
from breakhis_search.engines.ray_node import NodeOrder, RayNode, places_here
from breakhis_search.engines.shipping import Shelf
from breakhis_search.engines.source import Source
from breakhis_search.errors import EngineError, NotDeliveredError, StudyError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.workflow.preparation import Watcher
from breakhis_search.workflow.request import RunRequest
from tests.engines import fake_workers
from tests.engines.fake_node import FakeNode
from tests.patience import PATIENCE_S

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

# Ray's own threads and sockets outlive its shutdown by a moment.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def cluster() -> Any:
    """One cluster for all tests: starting one takes seconds."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))  # for the actors
    quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    ray.init("local", num_cpus=4, **quiet)
    yield ray
    ray.shutdown()
    patch.undo()


@pytest.fixture(autouse=True)
def _patient(monkeypatch) -> None:
    for name in ("_LOST_AFTER_S", "_STOP_WITHIN_S"):
        monkeypatch.setattr(f"breakhis_search.engines.ray_cluster.{name}", PATIENCE_S)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "study.yaml").write_text("name: binary\n")
    return read_settings({}, home=tmp_path)


@pytest.fixture
def engine(cluster: Any, settings: Settings) -> Callable[..., tuple[RayEngine, list[str]]]:
    def make(behaviour: str, workers: int) -> tuple[RayEngine, list[str]]:
        (settings.home / "behaviour").write_text(behaviour)
        said: list[str] = []
        log = settings.log_dir / "binary-worker.log"
        return RayEngine(
            Assignment(0, RunRequest("binary"), settings, log),
            study=settings.home / "study.yaml",
            data=None,
            watcher=Watcher(say=said.append),
            address=None,
            workers=workers,
            node=FakeNode,
        ), said

    return make


@pytest.fixture
def heeds_sigint() -> Iterator[None]:
    """What is started in the background of a shell inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def when_there(*files: Path, do: Callable[[], None]) -> None:
    """Do something as soon as some files are there, beside the test."""

    def wait() -> None:
        until = time.monotonic() + PATIENCE_S
        while not all(file.exists() for file in files) and time.monotonic() < until:
            time.sleep(0.05)
        do()

    threading.Thread(target=wait, daemon=True).start()


def test_one_worker_finds_the_study_and_the_others_join_it(engine) -> None:
    runs, said = engine("obedient", workers=3)
    assert runs.run() == fake_workers.OUTCOME
    assert said[0] == "Ray: 3 workers on 1 node"
    assert said[1] == "worker 0: at its own, leads: True"
    assert sorted(said[2:]) == [f"worker {i}: at binary@v1, leads: False" for i in (1, 2)]


def test_what_a_worker_cannot_go_on_for_ends_the_run(engine, settings) -> None:
    runs, _ = engine("refuses", workers=2)
    with pytest.raises(StudyError, match="all trials failed"):
        runs.run()


def test_ctrl_c_lets_every_worker_give_back_its_work(engine, settings, heeds_sigint) -> None:
    runs, _ = engine("works_for_ever", workers=2)
    working = [settings.home / f"working-{i}" for i in range(2)]
    when_there(*working, do=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        runs.run()
    assert all((settings.home / f"gave-back-{i}").exists() for i in range(2))


def test_worker_whose_actor_is_killed_comes_back_to_the_study_it_had_opened(
    engine, settings
) -> None:
    runs, said = engine("ends_at_the_second_start", workers=1)
    actor = settings.home / "actor-0"

    def kill_once_heard() -> None:
        until = time.monotonic() + PATIENCE_S
        while len(said) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(int(actor.read_text()), signal.SIGKILL)

    when_there(actor, do=kill_once_heard)
    assert runs.run() == fake_workers.OUTCOME
    assert said[1:] == ["worker 0: start 1 at its own", "worker 0: start 2 at binary@v1"]


def test_checkpoints_move_with_a_home_that_is_not_here(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache of the node"))
    absent = read_settings({}, home=Path("/on/the/driver/only"))
    here = places_here(absent)
    assert here.checkpoints == here.state_dir / "checkpoints"
    assert here.checkpoints.is_relative_to(tmp_path / "cache of the node")
    given = replace(absent, checkpoints=Path("/shared/checkpoints"))
    assert places_here(given).checkpoints == Path("/shared/checkpoints")
    assert places_here(settings).checkpoints == settings.checkpoints, "a home that nodes share"


def test_home_that_this_user_may_not_look_into_is_not_here(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path))
    absent = read_settings({}, home=Path("/on/the/driver/only"))

    def forbids(_: Path) -> bool:  # as root, who runs these tests at times, may look everywhere
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", forbids)
    assert places_here(absent).home == tmp_path / "home"


def test_files_as_stores_are_refused_for_several_machines(settings) -> None:
    require_servers(settings, nodes=1)
    with pytest.raises(
        EngineError, match="servers in BREAKHIS_STUDIES_URI and MLFLOW_TRACKING_URI.*2 nodes"
    ):
        require_servers(settings, nodes=2)
    served = replace(
        settings, studies_uri="postgresql+psycopg2://db/studies", tracking_uri="http://mlflow:5000"
    )
    require_servers(served, nodes=2)


def test_node_without_the_data_fetches_it_from_the_driver(
    cluster, folder, settings, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache of the node"))
    monkeypatch.delenv("BREAKHIS_ROOT", raising=False)
    source = ray.remote(Source).options(num_cpus=0).remote({"data": Shelf(folder)})
    absent = Path("/on/the/driver/only")
    assignment = Assignment(0, RunRequest("binary"), settings, settings.log_dir / "w.log")
    order = NodeOrder(assignment, "name: binary\n", absent, "the driver", {})
    here = RayNode(order, source).at_home()
    copied = sorted(here.request.data.rglob("*.*"))
    assert [f.name for f in copied] == [f"{n}.png" for n in range(5)]
    assert (here.request.data / "BreaKHis_v1" / "3.png").read_bytes() == bytes([3]) * 1000
    assert here.settings.state_dir.parent.name == "nodes"
    assert Path(here.request.study).read_text() == "name: binary\n"


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_that_could_not_deliver_ends_the_run_only_where_it_leads(settings, leads) -> None:
    """Who leads may have hours to go, and finds what is missing by itself."""
    assignment = Assignment(0, RunRequest("binary"), settings, settings.log_dir / "w.log")
    order = NodeOrder(replace(assignment, leads=leads), "", None, "the driver", {})
    node = RayNode(order, source=None)

    def run() -> None:
        raise NotDeliveredError("what was recorded could not be delivered: away")

    supervisor: Any = SimpleNamespace(run=run)
    if leads:
        with pytest.raises(NotDeliveredError):
            node._outcome(supervisor)
    else:
        assert node._outcome(supervisor) is None
        [said] = node.hear()
        assert said.text.endswith(f"could not be delivered: away; they wait on {gethostname()}")
