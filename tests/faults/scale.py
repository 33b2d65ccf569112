"""Many workers on one PostgreSQL: how much of their time goes into trials, how little around them.

    python -m tests.faults.scale [--workers 32] [--trials 2000] [--sleep 5] [--out FILE]
    python -m tests.faults.scale --workers 4 --trials 40 --sleep 0.2 --parameters 8 --reports 30

Every worker runs the real loop (leases, asking, telling, checkpoints, journal) of trials that do
nothing but draw hyperparameters, report epochs, and sleep. Workers are threads here, each with
connections of its own: for the database there is no difference, and 32 processes would only measure
this machine's memory. Prints, and writes, the share of the workers' time that was spent in trials,
the overhead of a trial by its number, how many transactions of the database a trial costs, and the
most connections that were open at once; exit code 1 where a figure does not reach its aim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import sqlalchemy as sa

from breakhis_search.config import SearchConfig
from breakhis_search.study import worker
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
        result = measure(server.uri, Path(folder), options)
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


def measure(uri: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one study; return its figures."""
    workers, trials, sleep_s = options.workers, options.trials, options.sleep
    space = [f"hyperparameter_{number}" for number in range(options.parameters)]
    most = 0  # connections that were open at once
    spent: dict[int, tuple[float, float]] = {}  # trial → (began, ended) without its overhead
    turns: list[tuple[int, float]] = []  # overhead before each trial, by trial

    def sleep_for(trial: Any, *_args: Any, **_options: Any) -> Any:
        for name in space:
            trial.suggest_float(name, 1e-5, 1e-1, log=True)
        for step in range(options.reports):
            trial.report(trial.params[space[0]], step)
        began = time.monotonic()
        ended = last_end.get(threading.get_ident())
        if ended is not None:
            turns.append((trial.number, began - ended))
        yield from ()
        time.sleep(sleep_s)
        last_end[threading.get_ident()] = time.monotonic()
        spent[trial.number] = (began, last_end[threading.get_ident()])
        return trial.params[space[0]]

    last_end: dict[int, float] = {}
    first_ask: dict[int, float] = {}
    worker.run_trial = sleep_for  # type: ignore[assignment]
    worker.trains_only_a_head = lambda *_: False
    config = SimpleNamespace(
        search=SearchConfig(trials=trials, pruner="none"),
        training=SimpleNamespace(max_epochs=1, head_epochs=0),
        stages=None,
        space={},
        enqueue=(),
    )
    storage = open_storage(uri)
    optuna.create_study(storage=storage, study_name="scale", direction="maximize")
    before = transactions(uri)
    start = time.monotonic()

    def work(number: int) -> None:
        own = open_storage(uri)
        study = optuna.load_study(
            study_name="scale",
            storage=own,
            sampler=build_sampler(config, finished=number),  # type: ignore[arg-type]
            pruner=build_pruner(config),  # type: ignore[arg-type]
        )
        with closing(Leases(uri)) as leases:
            context = SimpleNamespace(
                config=config,
                space={},
                uid="scale",
                split=SimpleNamespace(folds=[0]),
                journal=lambda uid: Journal(folder / "journal" / uid),
                delivery=NoDelivery(),
                leases=leases,
                checkpoints=CheckpointFiles(folder / "checkpoints"),
                observer=SilentObserver(),
                stage="search",
            )
            stage = SimpleNamespace(until=trials)
            first_ask[threading.get_ident()] = time.monotonic()
            while worker.run_batch(study, context, stage, at_most=1):  # type: ignore[arg-type]
                pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(5)
            most = max(most, connections(uri))
    elapsed = max(end for _, end in spent.values()) - start
    found = optuna.load_study(study_name="scale", storage=storage).get_trials(deepcopy=False)
    assert len(found) == trials, "the budget is met exactly"
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in found)
    of_workers = [last_end[ident] - first_ask[ident] for ident in last_end]
    return {
        "workers": workers,
        "trials": trials,
        "sleep_s": sleep_s,
        "parameters": options.parameters,
        "reports": options.reports,
        "seconds": round(elapsed, 1),
        "share_in_trials": round(trials * sleep_s / sum(of_workers), 4),
        "overhead_s": round(statistics.median(t for _, t in turns), 3),
        "overhead_by_trial_s": by_number(turns, trials),
        "transactions_per_trial": round((transactions(uri) - before) / trials, 1),
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
