"""How long ``compare``, ``status`` and ``report`` take on a study of thousands of trials.

    python -m tests.faults.long_store [--trials 2000] [--out FILE]

One real trial is searched, then copied, in both databases, under other names and numbers, until
there are so many; the commands are typed three times each, ``report`` at half of the trials.
Prints, and writes, the medians; exit code 1 where one is above its aim.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna

from breakhis_search.tracking import keys
from tests.faults.aims import Aim, judge
from tests.faults.machine_faults import Home
from tests.faults.soundness import runs_of, study_of

COMMANDS = {
    "compare": ["compare", "--study", "binary-demo"],
    "compare --profile": ["compare", "--study", "binary-demo", "--profile"],
    "status": ["status"],
}
REPORT = {"report": ["report", "--study", "binary-demo", "--out", "report"]}
AIMS_S = {"compare": 5.0, "status": 5.0, "report": 10.0}
_OF_A_RUN = ("runs", "params", "tags", "metrics", "latest_metrics")


def copy_runs(database: Path, run_id: str, numbers: range) -> None:
    """Copy a run of MLflow's database so many times."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table in _OF_A_RUN:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = connection.execute(
                f"SELECT {', '.join(columns)} FROM {table} WHERE run_uuid = ?",  # noqa: S608
                (run_id,),
            ).fetchall()
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} VALUES ({marks})",  # noqa: S608
                (_renamed(table, columns, row, n) for n in numbers for row in rows),
            )


def _renamed(table: str, columns: list[str], row: tuple[Any, ...], number: int) -> list[Any]:
    values = dict(zip(columns, row, strict=True))
    values["run_uuid"] = uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex
    if table == "runs":
        values["name"] = f"binary-demo@v1 trial {number:03d}"
    if table == "tags" and values["key"] == keys.TRIAL_UID:
        values["value"] = f"copy-{number}"
    if table == "tags" and values["key"] == keys.TRIAL_NUMBER:
        values["value"] = str(number)
    if table in ("metrics", "latest_metrics") and values["key"].startswith("objective/"):
        values["value"] = 0.5 + 0.4 * ((number * 7919) % 1000) / 1000
    return [values[column] for column in columns]


def copy_trials(study: optuna.Study, numbers: range) -> None:
    """Add as many complete trials to Optuna's study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    like = study.trials[0]
    study.add_trials(
        optuna.trial.create_trial(
            params=like.params,
            distributions=like.distributions,
            value=like.value,
            intermediate_values=like.intermediate_values,
            user_attrs={**like.user_attrs, "trial_uid": f"copy-{number}"},
        )
        for number in numbers
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    home = Home()
    done = home.command(1)
    assert done.returncode == 0, done.stderr
    from breakhis_search.tracking.store import open_store

    [run] = [
        r for r in runs_of(open_store(home.settings)) if r.data.tags[keys.ROLE] == keys.ROLE_TRIAL
    ]
    aims = []
    found: dict[str, Any] = {"trials": options.trials, "metrics_of_a_run": len(run.data.metrics)}
    half = options.trials // 2
    for numbers, commands in ((range(1, half), REPORT), (range(half, options.trials), COMMANDS)):
        copy_runs(home.settings.state_dir / "mlflow.db", run.info.run_id, numbers)
        copy_trials(study_of(home.settings), numbers)
        for name, arguments in commands.items():
            seconds = [_seconds(home, arguments) for _ in range(3)]
            what = f"{name}, {numbers.stop} trials"
            found[what] = round(statistics.median(seconds), 2)
            print(name, seconds, flush=True)
            if name in AIMS_S:
                aims.append(Aim(f"{what}, s", found[what], AIMS_S[name]))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    home.remove()
    judge(aims)


def _seconds(home: Home, arguments: list[str]) -> float:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "breakhis_search", *arguments],
        cwd=home.folder,
        env=home.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


if __name__ == "__main__":
    main()
