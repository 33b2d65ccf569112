"""Many workers on one PostgreSQL: how much of their time goes into trials, how little around them.

    python -m tests.faults.scale [--workers 32] [--trials 2000] [--sleep 5] [--out FILE]
    python -m tests.faults.scale --workers 4 --trials 40 --sleep 0.2 --parameters 8 --reports 30

Every worker runs the real loop of a search (leases, asking, telling) with trials that do nothing
but draw hyperparameters, report epochs, and sleep: they write no journal and no checkpoint, which
lie on the disk of each machine and not in the database that all share. Workers are processes, as in
a search, which share the cores of this machine with the database. Prints, and writes, the share of
the workers' time that was spent in trials, the overhead of a trial by its number, for how long a
worker that asks keeps the others from it, how many transactions of the database a trial costs, and
the most connections that were open at once; exit code 1 where a figure does not reach its aim.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import sqlalchemy as sa

from breakhis_search.config import StudyConfig
from breakhis_search.study import taken, worker
from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.study.leases import Leases
from breakhis_search.study.progress import SilentObserver
from breakhis_search.study.storage import open_storage
from breakhis_search.study.strategy import build_pruner, build_sampler
from breakhis_search.tracking.journal import Journal
from tests.faults.aims import Aim, judge
from tests.postgres_home import local_postgres


class NoDelivery:
    """Brings nothing anywhere."""

    def deliver(self, _journal: Journal) -> bool:
        return True


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--parameters", type=int, default=4, help="hyperparameters of a trial")
    parser.add_argument("--reports", type=int, default=0, help="epochs, over all folds, of a trial")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with local_postgres() as server, tempfile.TemporaryDirectory() as folder:
        load = Load(
            server.uri,
            Path(folder),
            options.trials,
            options.sleep,
            options.parameters,
            options.reports,
        )
        result = measure(load, options.workers)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    judge(_aims(result))


def _aims(result: dict[str, Any]) -> list[Aim]:
    aims = [Aim("share of the workers' time in trials", result["share_in_trials"], 0.95, True)]
    by_trial = list(result["overhead_by_trial_s"].values())
    if len(by_trial) > 1:
        grown = round(by_trial[-1] / by_trial[0], 2)
        aims.append(Aim("overhead of the last trials ÷ around trial 100", grown, 1.5))
    return aims


class TimedLeases(Leases):
    """Leases that remember how long they kept others out.

    Attributes:
        kept_out_s: Seconds of every time.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.kept_out_s: list[float] = []

    @contextmanager
    def exclusively(self, name: str, **options: Any) -> Iterator[None]:
        with super().exclusively(name, **options):
            began = time.monotonic()
            yield
            self.kept_out_s.append(time.monotonic() - began)


@dataclass(frozen=True)
class Turn:
    """What one trial took in a worker, in seconds of the clock that all processes share.

    Attributes:
        number: Of the trial.
        began: When its work began.
        ended: When its work ended.
        before: How long it was at other things since its last trial; ``None`` for its first.
    """

    number: int
    began: float
    ended: float
    before: float | None


@dataclass(frozen=True)
class Load:
    """What every worker does.

    Attributes:
        uri: The database.
        folder: For journals and checkpoints.
        trials: Of the study.
        sleep_s: Work of a trial.
        parameters: Hyperparameters of a trial.
        reports: Epochs, over all folds, of a trial.
    """

    uri: str
    folder: Path
    trials: int
    sleep_s: float
    parameters: int
    reports: int


def work(number: int, load: Load, told: Connection) -> None:
    """Be one worker until the budget is used up; tell when it first asked, turns, and asking."""
    space = [f"hyperparameter_{n}" for n in range(load.parameters)]
    turns: list[Turn] = []

    def sleep_for(trial: optuna.Trial, *_args: Any, **_options: Any) -> Any:
        for name in space:
            trial.suggest_float(name, 1e-5, 1e-1, log=True)
        for step in range(load.reports):
            trial.report(trial.params[space[0]], step)
        began = time.monotonic()
        yield from ()
        time.sleep(load.sleep_s)
        before = began - turns[-1].ended if turns else None
        turns.append(Turn(trial.number, began, time.monotonic(), before))
        return trial.params[space[0]]

    taken.run_trial = sleep_for  # type: ignore[assignment]
    taken.trains_only_a_head = lambda *_: False
    worker.in_stage = lambda known, _: known  # type: ignore[assignment]
    config = StudyConfig.model_validate(
        {
            "name": "scale",
            "task": "binary",
            "objective": "auroc",
            "search": {"trials": load.trials, "pruner": "none"},
        }
    )
    study = optuna.load_study(
        study_name="scale",
        storage=open_storage(load.uri),
        sampler=build_sampler(config, finished=number),
        pruner=build_pruner(config),
    )
    with closing(TimedLeases(load.uri)) as leases:
        context = SimpleNamespace(
            config=config,
            name="scale",
            space={},
            uid="scale",
            split=SimpleNamespace(folds=[0]),
            journal=lambda uid: Journal(load.folder / "journal" / uid),
            delivery=NoDelivery(),
            leases=leases,
            checkpoints=CheckpointFiles(load.folder / "checkpoints"),
            observer=SilentObserver(),
            stage="search",
        )
        first_ask = time.monotonic()
        worker.run_search(study, context)  # type: ignore[arg-type]
    told.send((first_ask, turns, leases.kept_out_s))


def measure(load: Load, workers: int) -> dict[str, Any]:
    """Run one study; return its figures."""
    storage = open_storage(load.uri)
    optuna.create_study(storage=storage, study_name="scale", direction="maximize")
    before = transactions(load.uri)
    # One process imports everything and is copied: as many imports would take minutes.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([worker.__name__])
    pipes = []
    for number in range(workers):
        ours, theirs = processes.Pipe(duplex=False)
        processes.Process(target=work, args=(number, load, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    most, told = 0, []  # connections that were open at once
    while pipes:
        for pipe in wait(pipes, 5):
            told.append(pipe.recv())
            pipes.remove(pipe)
        most = max(most, connections(load.uri))
    found = optuna.load_study(study_name="scale", storage=storage).get_trials(deepcopy=False)
    assert len(found) == load.trials, "the budget is met exactly"
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in found)
    turns = [turn for _, of_worker, _ in told for turn in of_worker]
    assert sorted(turn.number for turn in turns) == list(range(load.trials)), "each is run once"
    of_workers = [of_worker[-1].ended - first for first, of_worker, _ in told if of_worker]
    asking = [seconds for _, _, kept_out_s in told for seconds in kept_out_s]
    beside = [(turn.number, turn.before) for turn in turns if turn.before is not None]
    return {
        "workers": workers,
        "trials": load.trials,
        "sleep_s": load.sleep_s,
        "parameters": load.parameters,
        "reports": load.reports,
        "seconds": round(max(t.ended for t in turns) - min(first for first, *_ in told), 1),
        "share_in_trials": round(load.trials * load.sleep_s / sum(of_workers), 4),
        "overhead_s": round(statistics.median(seconds for _, seconds in beside), 3),
        "asking_s": round(statistics.median(asking), 3),
        "overhead_by_trial_s": by_number(beside, load.trials),
        "transactions_per_trial": round((transactions(load.uri) - before) / load.trials, 1),
        "connections": most,
    }


def by_number(turns: list[tuple[int, float]], trials: int) -> dict[str, float]:
    """Median overhead around some trial numbers."""
    places = [n for n in (100, 250, 500, 1000, 1500, 2000) if n <= trials]
    return {
        str(place): round(
            statistics.median(t for number, t in turns if abs(number - place) <= 50), 3
        )
        for place in places
    }


def transactions(uri: str) -> int:
    """Transactions that the database has committed."""
    return _ask(uri, "select sum(xact_commit) from pg_stat_database")


def connections(uri: str) -> int:
    """Connections that are open, without the one that asks."""
    return (
        _ask(uri, "select count(*) from pg_stat_activity where backend_type = 'client backend'") - 1
    )


def _ask(uri: str, query: str) -> int:
    engine = sa.create_engine(uri, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("select pg_stat_clear_snapshot()"))
        return int(connection.execute(sa.text(query)).scalar_one())


if __name__ == "__main__":
    main()
