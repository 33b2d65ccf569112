"""Kills drawn over named phases of real searches, until each study has come to its end.

    python -m tests.faults.kill_campaign --kills 50 --workers 1 [--postgres] [--out FILE]

Every worker process, and every process that delivers, is told at its start in which phase it is to
be killed (SIGKILL), the how manyeth time, and whether before, during or after: a phase in which few
were killed so far. Now and then the supervisor is killed instead, and the same command is typed
again.
After the last kill the search runs to its end, and :mod:`tests.faults.soundness` says what must
hold. Prints, and writes, kills by phase.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from breakhis_search import processes
from breakhis_search.data.demo import make_demo
from breakhis_search.engines.assignment import Assignment, share_out
from breakhis_search.engines.local import Supervisor, assignments
from breakhis_search.engines.worker_process import work
from breakhis_search.settings import Settings, read_settings
from breakhis_search.workflow.preparation import Watcher
from breakhis_search.workflow.request import RunRequest
from tests.faults.results import add_result
from tests.postgres_home import local_postgres

ROOT = Path(__file__).resolve().parents[2]
FOLDS, EPOCHS = 2, 5
OVERRIDES = (
    "data.height_px=32",
    "data.width_px=48",
    f"protocol.folds={FOLDS}",
    f"training.max_epochs={EPOCHS}",
    f"training.patience={EPOCHS}",
    "training.batch_size=16",
    "search.pruner=none",
    "search.attempts=1000",
    "space.small_cnn/blocks=2",
    "space.small_cnn/filters=16",
    "finalists.count=1",
    "finalists.seeds=1",
    "registration.floors={image/auroc: 0.01}",
)

AGAIN = 0.2
"""Share of the epochs that may be trained once more: a lost process may cost one that was not told
yet, and one whose state was being written. (Had they cost the fold, it would be most of them.)"""

_DELIVERY = "breakhis_search.tracking.delivery"
OF_WORKERS = {
    "ask": ("breakhis_search.study.taken", "TakenTrial.next", 2, 0.02),
    "epoch": ("breakhis_search.training.trainer", "FoldTrainer._epoch", 9, 0.2),
    "checkpoint": ("breakhis_search.study.checkpoints", "CheckpointFiles._do", 9, 0.01),
    "model written": ("breakhis_search.tracking.model_writer", "ModelWriter.write", 3, 0.3),
    "record": ("breakhis_search.tracking.journal", "Journal._append", 25, 0.005),
    "tell": ("optuna.study", "Study.tell", 1, 0.02),
    "lease": ("breakhis_search.study.leases", "Leases._take", 5, 0.01),
}
OF_COURIERS = {
    "run": (_DELIVERY, "Delivery._send_run", 1, 0.05),
    "metrics": (_DELIVERY, "Delivery._send_batch", 6, 0.05),
    "page": (_DELIVERY, "Delivery._draw", 1, 0.5),
    "upload": (_DELIVERY, "Delivery._send_artifacts", 2, 0.05),
    "model": (_DELIVERY, "Delivery._send_model", 3, 0.3),
}
"""Where a process is killed: module, function, the latest of its calls, and the longest time in
seconds after the beginning of one."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(phase: tuple[str, str, int, float], name: str, note: Path, rng: random.Random) -> None:
    """Let this process be killed before, during or after some call of a phase's function."""
    module, path, latest, longest_s = phase
    at, when = rng.randint(1, latest), rng.choice(("before", "during", "after"))
    __import__(module)
    holder: Any = sys.modules[module]
    *owners, method = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    original = getattr(holder, method)
    is_class_method = isinstance(vars(holder).get(method), classmethod)
    calls = iter(range(1, 10**9))

    def killed() -> None:
        note.write_text(name)
        _die()

    @contextmanager
    def dangerous() -> Iterator[None]:
        now = next(calls) == at
        if now and when == "before":
            killed()
        if now and when == "during":
            threading.Timer(rng.uniform(0.0, longest_s), killed).start()
        yield
        if now:  # a call that was over sooner is killed behind it
            killed()

    def called(*args: Any, **options: Any) -> Any:
        with dangerous():
            return original(*args[is_class_method:], **options)

    def stepped(*args: Any, **options: Any) -> Any:
        with dangerous():
            return (yield from original(*args, **options))

    wrapped = stepped if inspect.isgeneratorfunction(original) else called
    setattr(holder, method, classmethod(wrapped) if is_class_method else wrapped)


def _doom(home: Path, phases: dict[str, tuple[str, str, int, float]], who: str) -> None:
    """Let this process be killed in a phase that few were killed in, unless enough have been."""
    folder = home / "kills"
    folder.mkdir(exist_ok=True)
    done = Counter(note.read_text() for note in folder.iterdir())
    if done.total() < int(os.environ["CAMPAIGN_KILLS"]):
        rng = random.Random(f"{os.environ['CAMPAIGN_SEED']} {done.total()} {who}")
        name = min(phases, key=lambda phase: (done[phase], rng.random()))
        plant(phases[name], name, folder / f"{who}-{os.getpid()}", rng)


def _count_epochs(home: Path) -> None:
    """Keep of every epoch that this process has trained that it did."""
    from breakhis_search.training.trainer import FoldTrainer

    original = FoldTrainer._epoch

    def counted(*args: Any, **options: Any) -> Any:
        done = yield from original(*args, **options)
        with (home / "epochs").open("a") as file:
            file.write(".")
        return done

    FoldTrainer._epoch = counted  # type: ignore[method-assign]


def doomed(pipe: Connection, assignment: Assignment) -> None:
    """Work, and be killed, unless enough have been."""
    _count_epochs(Path(assignment.settings.home))
    _doom(Path(assignment.settings.home), OF_WORKERS, f"worker-{assignment.number}")
    work(pipe, assignment)


def doomed_courier(pipe: Connection, settings: Settings, *more: Any) -> None:
    """Deliver, and be killed, unless enough have been."""
    from breakhis_search.tracking.courier import _carry

    _doom(settings.home, OF_COURIERS, "courier")
    _carry(pipe, settings, *more)


def request_of(data: Path, trials: int) -> RunRequest:
    """The search that every campaign makes."""
    return RunRequest(
        "binary", data=data, profile="demo", trials=trials, overrides=OVERRIDES, device="cpu"
    )


def begin_as_copies() -> None:
    """Let processes be copies of one that has loaded Keras and MLflow: a kill costs a moment then.

    For a harness on the CPU alone: of a process that has used a GPU there are no copies, and what
    an assignment says of threads comes too late for some libraries.
    """
    processes.CONTEXT = multiprocessing.get_context("forkserver")  # type: ignore[assignment]
    processes.CONTEXT.set_forkserver_preload(
        ["breakhis_search.workflow.search", "breakhis_search.study.report"]
    )


def search(
    home: Path, data: Path, trials: int, workers: int, target: Callable[..., None] = doomed
) -> None:
    """Run the search under supervision, as the command does, with workers that fail."""
    from breakhis_search.engines import local
    from breakhis_search.tracking import courier

    if target is doomed:
        courier._carry = doomed_courier
    begin_as_copies()
    local.DEATHS_THAT_STOP = 10**9
    local.FIRST_PAUSE_S = local.LONGEST_PAUSE_S = 0.05
    local._WITHIN_S = 0.0
    settings = read_settings(home=home)
    request = request_of(data, trials)
    first = Assignment(0, request, settings, settings.log_dir, asks_before_hours=False)
    shares = share_out(workers, [], cores=os.cpu_count() or 1)
    crew = assignments(first, shares, lambda i: settings.log_dir / f"worker-{i}.log")
    print(Supervisor(crew, Watcher(say=print), target).run(), flush=True)


def campaign(
    *, kills: int, workers: int, trials: int, seed: int, postgres: str | None, say: Callable
) -> dict[str, Any]:
    """Run one study through its kills; return what was done to it and that it came out sound."""
    from tests.faults.soundness import assert_sound

    rng = random.Random(seed)
    home = Path(tempfile.mkdtemp(prefix="breakhis-kills-"))
    (home / "experiments").symlink_to(ROOT / "experiments")
    data = make_demo(home / "demo", images_per_slide=1, height_px=64, width_px=96)
    variables = {
        "BREAKHIS_CACHE": str(home / "cache"),
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CAMPAIGN_KILLS": str(kills),
        "CAMPAIGN_SEED": str(seed),
        **({"BREAKHIS_STUDIES_URI": postgres} if postgres else {}),
    }
    environment = {**os.environ, **variables}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "tests.faults.kill_campaign", "--search", str(home)]
    command += ["--data", str(data), "--trials", str(trials), "--workers", str(workers)]
    start, supervisors = time.monotonic(), 0
    noted = home / "kills"
    while True:
        log = (home / "supervisor.log").open("a")
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        limit = rng.uniform(45, 120) if _count(noted) < kills else 1200
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            supervisors += 1
            say(f"{_count(noted)} kills, and the supervisor")
            continue
        finally:
            log.close()
        if code == 0:
            break
        raise SystemExit((home / "supervisor.log").read_text()[-4000:])
    settings = read_settings(environment, home=home)
    assert_sound(settings, trials, folds=FOLDS, epochs=EPOCHS)
    killed = Counter(f.read_text() for f in noted.iterdir())
    lost = sum(killed[phase] for phase in OF_WORKERS) + supervisors * workers
    trained = (home / "epochs").stat().st_size
    # The trials, a finalist and the refit, of at most so many epochs.
    wanted = (trials + 1) * FOLDS * EPOCHS + EPOCHS
    assert trained <= (1 + AGAIN) * wanted, f"{trained} epochs for {wanted}, {lost} processes lost"
    result = {
        "workers": workers,
        "storage": "postgresql" if postgres else "sqlite",
        "trials": trials,
        "kills": dict(killed),
        "supervisors_killed": supervisors,
        "epochs_trained": trained,
        "epochs_wanted": wanted,
        "seconds": round(time.monotonic() - start),
    }
    shutil.rmtree(home)
    return result


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def main() -> None:
    """Run a campaign, or be the supervisor of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="studies in PostgreSQL")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        search(options.search, options.data, options.trials, options.workers)
        return
    with local_postgres() if options.postgres else nullcontext() as server:
        result = campaign(
            kills=options.kills,
            workers=options.workers,
            trials=options.trials,
            seed=options.seed,
            postgres=server.uri if server else None,
            say=lambda text: print(text, flush=True),
        )
    print(json.dumps(result))
    if options.out:
        name = f"{options.workers} workers, {result['storage']}"
        add_result(options.out, name, result)


if __name__ == "__main__":
    main()
