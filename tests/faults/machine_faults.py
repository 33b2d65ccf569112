"""Databases that restart, disks that fill, workers that crash by themselves, nodes that go.

    python -m tests.faults.machine_faults [--out FILE] [database|disk|crashes|node|driver …]

Each scenario is one real search, with a real PostgreSQL, MLflow server, Ray cluster or file system.
What must hold at its end is in :mod:`tests.faults.soundness`. ``disk`` mounts a small tmpfs, for
which it must be root; where it is not, it says so and is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from breakhis_search.data.demo import make_demo
from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.worker_process import work
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.workflow.preparation import Watcher
from tests.faults.kill_campaign import EPOCHS, FOLDS, OVERRIDES, ROOT, request_of, search
from tests.faults.results import add_result
from tests.faults.server_faults import Server, epochs_in
from tests.faults.soundness import assert_sound, study_of
from tests.postgres_home import local_postgres

SCENARIOS = ("database", "disk", "crashes", "node", "driver")
_DISK_KB, _ENOUGH_KB = 12_000, 600_000
_FIRST = 0.1  # of epochs, until a crash of its kind was there: none is left out
_CRASHES = {"segfault": 0.03, "out of memory": 0.06, "NaN": 0.02}
"""How likely each is in an epoch."""


class Home:
    """A user's folder, a tiny demo, and the search as a process in it.

    Args:
        folder: One that was begun before, or an empty one; ``None`` for a new one.
        variables: For the processes in it.
    """

    def __init__(self, folder: Path | None = None, **variables: str) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="breakhis-faults-"))
        self.data = self.folder / "demo"
        if not self.data.exists():
            (self.folder / "experiments").symlink_to(ROOT / "experiments")
            make_demo(self.data, images_per_slide=1, height_px=64, width_px=96)
        own = {
            "BREAKHIS_CACHE": str(self.folder / "cache"),
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "RAY_AUTH_MODE": "disabled",
            "CAMPAIGN_KILLS": "0",
            "CAMPAIGN_SEED": "0",
        }
        self.environment = {**os.environ, "MLFLOW_TRACKING_URI": "", **own, **variables}

    @property
    def settings(self) -> Settings:
        return read_settings(self.environment, home=self.folder)

    def start(self, mode: str, trials: int, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.faults.machine_faults", "--mode", mode]
        command += ["--home", str(self.folder), "--data", str(self.data), "--trials", str(trials)]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [*command, *more],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def command(self, trials: int) -> subprocess.CompletedProcess[str]:
        """The search as a user types it."""
        sets = [f"--set={override}" for override in OVERRIDES]
        arguments = ["run", "--study=binary", "--profile=demo", f"--data={self.data}", *sets]
        return subprocess.run(
            [sys.executable, "-m", "breakhis_search", *arguments, f"--trials={trials}"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def epochs(self) -> int:
        """How many epochs have been recorded."""
        files = self.settings.journal_dir.glob("*/records.jsonl")
        return sum(epochs_in(f.read_text()) for f in files)

    def wait_for_epochs(self, count: int, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 300
        while self.epochs() < count and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)

    def ends_well(self, process: subprocess.Popen[str]) -> None:
        if process.wait(900):
            raise SystemExit((self.folder / "log").read_text()[-5000:])

    def assert_sound(self, trials: int, histories: Any = None) -> None:
        os.environ["MLFLOW_TRACKING_URI"] = self.environment["MLFLOW_TRACKING_URI"]
        assert_sound(self.settings, trials, folds=FOLDS, epochs=EPOCHS, histories=histories)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


# --- a database that goes away ------------------------------------------------------------------


def database(trials: int) -> dict[str, Any]:
    """Three workers; PostgreSQL is restarted, then drops all connections, again and again."""
    with local_postgres() as server:
        home = Home(BREAKHIS_STUDIES_URI=server.uri)
        process = home.start("search", trials, "--workers", "3")
        restarts = drops = 0
        for turn in range(6):
            home.wait_for_epochs(home.epochs() + 2 * EPOCHS, process)
            if process.poll() is not None:
                break
            if turn % 2:
                drops += _drop_connections(server.uri)
            else:
                server.stop()
                time.sleep(5)
                server.start()
                restarts += 1
        home.ends_well(process)
        home.assert_sound(trials)
    home.remove()
    return {"trials": trials, "workers": 3, "restarts": restarts, "connections_dropped": drops}


def _drop_connections(uri: str) -> int:
    engine = sa.create_engine(uri)
    query = "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> "
    with engine.connect() as connection:
        mine = "pg_backend_pid() and backend_type = 'client backend'"
        count = connection.execute(sa.text(query + mine)).scalar_one()
    engine.dispose()
    return int(count)


# --- a disk that fills --------------------------------------------------------------------------


def disk(trials: int) -> dict[str, Any]:
    """``mlruns`` is on a file system that is full after a while, then read-only, then roomy."""
    if os.geteuid() != 0:
        return {"left_out": "mounting a tmpfs needs root"}
    home = Home()
    with _mounted(home.folder / "mlruns", _DISK_KB) as remount:
        full = home.command(trials)
        _assert_one_line(full)
        remount(f"size={_ENOUGH_KB}k,ro")
        read_only = home.command(trials)
        _assert_one_line(read_only)
        remount(f"size={_ENOUGH_KB}k,rw")
        done = home.command(trials)
        assert done.returncode == 0, done.stderr
        home.assert_sound(trials)
    home.remove()
    return {
        "trials": trials,
        "full": full.stderr.strip().splitlines()[-1],
        "read_only": read_only.stderr.strip().splitlines()[-1],
    }


def _assert_one_line(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr


@contextmanager
def _mounted(folder: Path, size_kb: int) -> Any:
    folder.mkdir()

    def mount(options: str, *more: str) -> None:
        program = shutil.which("mount") or "/bin/mount"
        command = [program, *more, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    mount(f"size={size_kb}k")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        # Lazily: this process still has the databases open in which it looked for soundness.
        subprocess.run([shutil.which("umount") or "/bin/umount", "-l", str(folder)], check=False)


# --- workers that crash by themselves -------------------------------------------------------------


def crashing(pipe: Connection, assignment: Assignment) -> None:
    """Work; any epoch may crash the process, want more memory, or come to NaN."""
    from breakhis_search.training.trainer import FoldTrainer

    rng = random.Random(os.getpid())
    notes = Path(assignment.settings.home) / "crashes"
    notes.mkdir(exist_ok=True)
    train = FoldTrainer._train_epoch

    def maybe(self: Any, *args: Any) -> Any:
        _, data, *_ = args
        if not len(data.validation):  # the refit: that it fails is no failure of a trial
            return (yield from train(self, *args))
        drawn, chance = "", rng.random()
        planted = {note.read_text() for note in notes.iterdir()}
        for name, share_later in _CRASHES.items():
            share = share_later if name in planted else _FIRST
            if 0 <= chance < share:
                drawn = name
            chance -= share
        if drawn:
            (notes / f"{os.getpid()}-{time.time_ns()}").write_text(drawn)
        if drawn == "segfault":
            ctypes.string_at(0)
        if drawn == "out of memory":
            raise MemoryError("planted")
        if drawn == "NaN":
            phase, data, order, rates, epoch = args
            args = (phase, data, order, rates * float("nan"), epoch)
        return (yield from train(self, *args))

    FoldTrainer._train_epoch = maybe  # type: ignore[method-assign]
    work(pipe, assignment)


def crashes(trials: int) -> dict[str, Any]:
    """The study ends although its processes and trials do not always; every cause is recorded."""
    home = Home()
    home.ends_well(home.start("crashes", trials, "--workers", "2"))
    home.assert_sound(trials)
    found = study_of(home.settings).get_trials(deepcopy=False)
    failed = [t for t in found if t.state == TrialState.FAIL]
    planted = Counter(f.read_text() for f in (home.folder / "crashes").iterdir())
    from breakhis_search.tracking.store import open_store
    from tests.faults.soundness import runs_of

    causes = {
        run.data.tags[keys.TRIAL_UID]: run.data.tags.get(keys.FAILURE, "")
        for run in runs_of(open_store(home.settings))
    }
    assert set(planted) == set(_CRASHES), "each of them was there"
    assert all(causes[t.user_attrs["trial_uid"]] for t in failed), "every failure has its cause"
    home.remove()
    return {"trials": trials, "planted": dict(planted), "failed": len(failed)}


# --- a Ray cluster -------------------------------------------------------------------------------


@contextmanager
def _ray_study(nodes: int) -> Any:
    """A cluster of simulated nodes on this machine, both servers, and a home that knows them."""
    from mlflow import MlflowClient
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        postgres = stack.enter_context(local_postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Server(folder / "server")
        server.start()
        stack.callback(server.kill)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        stack.callback(cluster.shutdown)
        others = [cluster.add_node(num_cpus=2) for _ in range(nodes - 1)]
        home = Home(
            BREAKHIS_STUDIES_URI=postgres.uri,
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.port}",
        )
        histories = MlflowClient(f"sqlite:///{server.folder / 'server.db'}")
        yield home, cluster, others, histories
        home.remove()


def node(trials: int) -> dict[str, Any]:
    """Of three nodes one is taken away while trials are at work."""
    with _ray_study(nodes=3) as (home, cluster, others, histories):
        process = home.start("ray", trials, "--address", cluster.address, "--workers", "2")
        home.wait_for_epochs(3 * EPOCHS + 2, process)
        cluster.remove_node(others[0], allow_graceful=False)
        home.ends_well(process)
        home.assert_sound(trials, histories)
    return {"trials": trials, "nodes": 3, "removed": 1}


def driver(trials: int) -> dict[str, Any]:
    """The process the user started is killed; the same command goes on."""
    with _ray_study(nodes=2) as (home, cluster, _, histories):
        for _ in range(2):
            process = home.start("ray", trials, "--address", cluster.address, "--workers", "2")
            home.wait_for_epochs(home.epochs() + 2 * EPOCHS + 2, process)
            process.kill()
            process.wait()
        process = home.start("ray", trials, "--address", cluster.address, "--workers", "2")
        home.ends_well(process)
        home.assert_sound(trials, histories)
    return {"trials": trials, "nodes": 2, "drivers_killed": 2}


def ray_search(home: Path, data: Path, trials: int, workers: int, address: str) -> None:
    """Run the search on a cluster, as the command does."""
    from breakhis_search.engines.ray_cluster import RayEngine

    settings = read_settings(home=home)
    first = Assignment(
        0,
        request_of(data, trials),
        settings,
        settings.log_dir / "worker.log",
        asks_before_hours=False,
    )
    engine = RayEngine(
        first,
        study=ROOT / "experiments" / "binary.yaml",
        data=data,
        watcher=Watcher(say=lambda text: print(text, flush=True)),
        address=address,
        workers=workers,
    )
    print(engine.run(), flush=True)


def main() -> None:
    """Run the scenarios, or be the search of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--mode", choices=["search", "crashes", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode == "ray":
        ray_search(options.home, options.data, options.trials, options.workers, options.address)
        return
    if options.mode:
        target = crashing if options.mode == "crashes" else work
        search(options.home, options.data, options.trials, options.workers, target)
        return
    results = {}
    for name in options.scenarios:
        run: Callable[[int], dict[str, Any]] = globals()[name]
        start = time.monotonic()
        results[name] = {**run(options.trials), "seconds": round(time.monotonic() - start)}
        print(name, json.dumps(results[name]), flush=True)
        if options.out:
            add_result(options.out, name, results[name])
    if any("left_out" in found for found in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
