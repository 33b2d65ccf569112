"""The supervisor, with real processes that do as they are told."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from breakhis_search.engines import local
from breakhis_search.engines.assignment import Assignment, share_out, visible_gpus
from breakhis_search.engines.local import Supervisor, assignments
from breakhis_search.errors import (
    ConfigError,
    DiskError,
    EngineError,
    NotDeliveredError,
    StorageLostError,
    StudyError,
    TrackingError,
)
from breakhis_search.settings import Settings, read_settings
from breakhis_search.study.progress import SilentObserver, TrialSummary
from breakhis_search.tracking import courier
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store
from breakhis_search.workflow.preparation import Watcher
from breakhis_search.workflow.request import RunRequest
from tests.engines import fake_workers
from tests.patience import PATIENCE_S, wait_until


class Seen(SilentObserver):
    """What was told of the search."""

    def __init__(self) -> None:
        self.worker = -1
        self.trials: list[tuple[int, TrialSummary]] = []

    def of_worker(self, number: int) -> None:
        self.worker = number

    def trial_finished(self, summary: TrialSummary) -> None:
        self.trials.append((self.worker, summary))


@pytest.fixture
def settings(tmp_path: Path, with_stores: Callable[[Path], Path]) -> Settings:
    return read_settings({}, home=with_stores(tmp_path))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervise(settings, said, monkeypatch) -> Callable[..., Supervisor]:
    monkeypatch.setattr(local, "FIRST_PAUSE_S", 0.01)

    def supervise(target, workers: int = 1, confirm=None) -> Supervisor:
        first = Assignment(
            0,
            RunRequest("binary"),
            settings,
            settings.log_dir,
            asks_before_hours=confirm is not None,
        )
        crew = assignments(first, [{}] * workers, lambda i: settings.log_dir / f"{i}.log")
        watcher = Watcher(say=said.append, search=Seen(), confirm_slow=confirm)
        return Supervisor(crew, watcher, target)

    return supervise


def test_a_store_that_refuses_again_and_again_is_not_waited_for_for_ever(supervise, monkeypatch):
    monkeypatch.setattr(local, "STORE_PATIENCE_S", 1.0)
    monkeypatch.setattr(local, "STORE_PAUSE_S", 0.1)
    supervisor = supervise(fake_workers.is_refused_for_ever)
    watchdog = threading.Timer(PATIENCE_S, supervisor.ask_to_stop)
    watchdog.start()
    with pytest.raises(TrackingError, match="refuses"):
        supervisor.run()
    watchdog.cancel()


def test_one_worker_finds_the_study_and_the_others_join_it(supervise, said):
    supervisor = supervise(fake_workers.obedient, workers=3)
    assert supervisor.run() == fake_workers.OUTCOME
    assert said[0] == "worker 0: at its own, leads: True"
    assert sorted(said[1:]) == [f"worker {i}: at binary@v1, leads: False" for i in (1, 2)]
    trials = sorted(supervisor._watcher.search.trials, key=lambda seen: seen[0])
    assert trials == [(i, fake_workers.summary(i)) for i in range(3)]


def test_a_worker_that_dies_is_replaced(supervise, said):
    assert supervise(fake_workers.dies_twice).run() == fake_workers.OUTCOME
    assert len(said) == 2
    assert "worker 0 died (killed by SIGKILL: often for want of memory)" in said[0]
    assert "goes on from its last epoch" in said[0]


def test_a_worker_that_always_dies_ends_the_run(supervise, settings):
    with pytest.raises(EngineError, match="died 5 times in a row.*SIGSEGV.*0.log"):
        supervise(fake_workers.always_dies).run()
    assert (settings.home / "starts-0").read_text() == "5"


def test_a_tired_worker_makes_room_for_a_fresh_one(supervise, settings, said):
    assert supervise(fake_workers.tires).run() == fake_workers.OUTCOME
    assert (settings.home / "starts-0").read_text() == "2"
    assert said == [], "it is no news"


def test_what_one_worker_cannot_go_on_for_ends_them_all(supervise):
    with pytest.raises(StudyError, match="all trials failed; to do: mend the cause"):
        supervise(fake_workers.refuses, workers=2).run()


def test_a_database_that_goes_away_is_waited_for(supervise, settings, said, monkeypatch):
    monkeypatch.setattr(local, "STORE_PAUSE_S", 0.01)
    assert supervise(fake_workers.loses_the_storage).run() == fake_workers.OUTCOME
    assert (settings.home / "starts-0").read_text() == "3"
    assert len(said) == 2
    assert "the study storage cannot be used; worker 0 tries again" in said[0]


def test_an_mlflow_that_goes_away_is_waited_for(supervise, settings, said, monkeypatch):
    monkeypatch.setattr(local, "STORE_PAUSE_S", 0.01)
    assert supervise(fake_workers.loses_mlflow).run() == fake_workers.OUTCOME
    assert "does not answer; worker 0 tries again" in said[0]


@pytest.mark.parametrize("error", [DiskError("the disk is full"), NotDeliveredError("5 minutes")])
def test_what_waiting_does_not_mend_ends_the_run(error):
    assert not local._may_heal(error)


def test_a_database_that_stays_away_ends_the_run(supervise, settings, monkeypatch):
    monkeypatch.setattr(local, "STORE_PAUSE_S", 0.01)
    monkeypatch.setattr(local, "STORE_PATIENCE_S", 0.0)
    with pytest.raises(StorageLostError, match="cannot be used"):
        supervise(fake_workers.loses_the_storage).run()


def test_a_database_that_never_answered_ends_the_run_at_once(supervise, settings):
    with pytest.raises(StorageLostError, match="cannot be used"):
        supervise(fake_workers.never_finds_the_storage).run()
    assert (settings.home / "starts-0").read_text() == "1"


def test_a_defect_is_one_line_with_the_place_of_its_traceback(supervise):
    with pytest.raises(EngineError, match=r"ran into a defect: ZeroDivisionError.*0\.log") as error:
        supervise(fake_workers.has_a_defect).run()
    assert "\n" not in str(error.value)


@pytest.fixture
def heeds_signals() -> Iterator[None]:
    """A suite that runs in the background of a shell inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def when_working(settings: Settings, workers: int, act: Callable[[], None]) -> threading.Thread:
    def wait_and_act() -> None:
        files = [settings.home / f"working-{i}" for i in range(workers)]
        while not all(file.exists() for file in files):
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


@pytest.mark.usefixtures("heeds_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_who_stops_it_stops_every_worker_once(supervise, settings, number):
    supervisor = supervise(fake_workers.works_for_ever, workers=2)
    thread = when_working(settings, 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt):
        supervisor.run()
    thread.join()
    assert all((settings.home / f"gave-back-{i}").exists() for i in (0, 1))


@pytest.mark.usefixtures("heeds_signals")
def test_a_worker_that_does_not_stop_is_killed(supervise, settings, monkeypatch):
    monkeypatch.setattr(local, "_STOP_WITHIN_S", 0.5)
    supervisor = supervise(fake_workers.ignores_everything)
    thread = when_working(settings, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        supervisor.run()
    thread.join()
    pid = int((settings.home / "working-0").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_leave_their_work_when_their_supervisor_is_killed(tmp_path):
    code = (
        "import sys, pathlib; from breakhis_search.settings import read_settings;"
        "from breakhis_search.engines.assignment import Assignment;"
        "from breakhis_search.engines.local import Supervisor;"
        "from breakhis_search.workflow.preparation import Watcher;"
        "from breakhis_search.workflow.request import RunRequest;"
        "from tests.engines import fake_workers;"
        "s = read_settings({}, home=pathlib.Path(sys.argv[1]));"
        "a = Assignment(0, RunRequest('binary'), s, s.log_dir);"
        "Supervisor([a], Watcher(), fake_workers.works_for_ever).run()"
    )
    root = Path(__file__).resolve().parents[2]
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root)
    working, gave_back = tmp_path / "working-0", tmp_path / "gave-back-0"
    wait_until(lambda: working.exists() and working.read_text() != "")
    supervisor.kill()
    supervisor.wait()
    wait_until(gave_back.exists)


def begun(settings: Settings) -> Journal:
    journal = Journal(settings.journal_dir / "the-run")
    journal.begin(name="a run", tags={}, parent_uid=None, experiment="breakhis-x")
    return journal


def test_one_courier_carries_for_the_workers(supervise, settings, said):
    journal = begun(settings)
    supervise(fake_workers.delivers).run()
    assert said == ["Flushed"]
    assert not journal.has_undelivered
    assert Delivery(open_store(settings), settings).run_id("the-run")


def test_a_courier_that_was_killed_is_replaced_and_nothing_is_lost(supervise, settings, said):
    journal = begun(settings)
    supervisor = supervise(fake_workers.delivers)
    os.kill(supervisor._carries()._process.pid, signal.SIGKILL)
    supervisor.run()
    assert said == ["Flushed"]
    assert not journal.has_undelivered


class DeadCourier:
    """A courier that has died as soon as it is looked at."""

    def __init__(self, *_: object, **__: object) -> None:
        self.connection = None

    def close(self) -> None:
        pass

    def ended(self) -> TrackingError:
        return TrackingError("the process that brings records to MLflow has ended")

    def ask_for(self, _uid: str) -> None:
        pass


def test_a_run_that_nobody_leads_ends_when_all_is_delivered(supervise, settings):
    journal = begun(settings)
    assert supervise(fake_workers.only_joins).run() is None
    assert not journal.has_undelivered


def test_a_run_that_nobody_leads_says_what_could_not_be_delivered(supervise, settings, monkeypatch):
    (settings.state_dir / "mlflow.db").unlink()
    (settings.state_dir / "mlflow.db").mkdir()
    journal = begun(settings)
    impatient = functools.partial(courier.Courier, patience_s=0.0)
    monkeypatch.setattr(local, "Courier", impatient)
    with pytest.raises(TrackingError, match=r"could not be delivered.*status --deliver"):
        supervise(fake_workers.only_joins).run()
    assert journal.has_undelivered


@pytest.mark.parametrize(("apart_s", "ends_it"), [(700.0, True), (901.0, False)])
def test_couriers_that_die_more_than_once_in_a_while_end_the_run(
    supervise, monkeypatch, apart_s, ends_it
):
    now = {"s": 0.0}
    monkeypatch.setattr(local, "Courier", DeadCourier)
    monkeypatch.setattr(local.time, "monotonic", lambda: now["s"])
    supervisor = supervise(fake_workers.delivers)

    def die(times: int) -> None:
        for _ in range(times):
            now["s"] += apart_s
            supervisor._replace_courier()

    die(4)
    if ends_it:
        with pytest.raises(TrackingError, match="brings records to MLflow has ended"):
            die(1)
    else:
        die(20)


def test_who_declines_hours_on_a_cpu_is_asked_before_anything_is_done(supervise, settings):
    asked: list[tuple[float, str]] = []

    def decline(hours: float, basis: str) -> None:
        asked.append((hours, basis))
        raise ConfigError("not started")

    with pytest.raises(ConfigError, match="not started"):
        supervise(fake_workers.asks_first, confirm=decline).run()
    assert asked == [(30.0, "as measured")]
    assert not (settings.home / "went-on").exists()
    supervise(fake_workers.asks_first, confirm=lambda *_: None).run()
    assert (settings.home / "went-on").exists()


def test_gpus_are_shared_out_evenly_and_cores_too():
    assert share_out(1, [], cores=8) == [{}]
    three = share_out(3, ["0", "GPU-abc"], cores=8)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in three] == ["0", "GPU-abc", "0"]
    assert all(e["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.45" for e in three)


@pytest.mark.parametrize(
    ("named", "found"), [("0,2", ["0", "2"]), ("", []), ("-1", []), (" GPU-a , 1", ["GPU-a", "1"])]
)
def test_gpus_that_were_named_are_those_in_use(named, found):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == found


def test_the_supervisor_and_what_starts_a_worker_load_nothing_heavy():
    code = (
        "import sys, breakhis_search.engines.local, breakhis_search.engines.worker_process;"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'mlflow', 'scipy.stats'};"
        "print(heavy & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
