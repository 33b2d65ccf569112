"""How long ``compare``, ``status`` and ``report`` take on a study of thousands of trials.

    python -m tests.faults.long_store [--trials 2000] [--out FILE]
    python -m tests.faults.long_store --begin FOLDER   # only the real trial, beside other work,
    python -m tests.faults.long_store --begun FOLDER   # and the rest when nothing is beside it

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
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from breakhis_search.study.budget import UID
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
_OF_A_RUN = dict.fromkeys(("runs", "params", "tags", "metrics", "latest_metrics"), "run_uuid")
_OF_A_TRIAL = dict.fromkeys(
    (
        "trials",
        "trial_params",
        "trial_values",
        "trial_intermediate_values",
        "trial_user_attributes",
        "trial_system_attributes",
    ),
    "trial_id",
)

Row = dict[str, Any]


def copy_rows(
    database: Path,
    tables: dict[str, str],
    of: Any,
    numbers: range,
    rename: Callable[[str, Row, int], None],
) -> None:
    """Copy all that an SQLite database holds of something so many times.

    Args:
        database: The file.
        tables: The column by which each table names it.
        of: Its name.
        numbers: Of the copies.
        rename: Makes a copied row of a table one of the copy of that number.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        for table, column in tables.items():
            known = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = [c["name"] for c in known if c["name"] == column or not _counts(c)]
            rows = connection.execute(
                f"SELECT {', '.join(columns)} FROM {table} WHERE {column} = ?",  # noqa: S608
                (of,),
            ).fetchall()
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
                (_renamed(table, dict(row), n, rename) for n in numbers for row in rows),
            )


def _counts(column: sqlite3.Row) -> bool:
    """Whether the database numbers the rows of a table by this column."""
    return bool(column["pk"]) and column["type"] == "INTEGER"


def _renamed(
    table: str, row: Row, number: int, rename: Callable[[str, Row, int], None]
) -> list[Any]:
    rename(table, row, number)
    return list(row.values())


def _another_run(table: str, row: Row, number: int) -> None:
    row["run_uuid"] = uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex
    if table == "runs":
        row["name"] = f"binary-demo@v1 trial {number:03d}"
    if table == "tags" and row["key"] == keys.TRIAL_UID:
        row["value"] = f"copy-{number}"
    if table == "tags" and row["key"] == keys.TRIAL_NUMBER:
        row["value"] = str(number)
    if table in ("metrics", "latest_metrics") and row["key"].startswith("objective/"):
        row["value"] = 0.5 + 0.4 * ((number * 7919) % 1000) / 1000


def _another_trial(table: str, row: Row, number: int) -> None:
    row["trial_id"] += number
    if table == "trials":
        row["number"] = number
    if table == "trial_user_attributes" and row["key"] == UID:
        row["value_json"] = json.dumps(f"copy-{number}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--begin", type=Path, help="search the real trial there, and end")
    parser.add_argument("--begun", type=Path, help="where it was searched; it is removed")
    options = parser.parse_args()
    home = Home(options.begin or options.begun)
    if not options.begun:
        done = home.command(1)
        assert done.returncode == 0, done.stderr
    if options.begin:
        return
    from breakhis_search.tracking.store import open_store

    [run] = [
        r for r in runs_of(open_store(home.settings)) if r.data.tags[keys.ROLE] == keys.ROLE_TRIAL
    ]
    [trial] = study_of(home.settings).get_trials(deepcopy=False)
    aims = []
    found: dict[str, Any] = {"trials": options.trials, "metrics_of_a_run": len(run.data.metrics)}
    half = options.trials // 2
    for numbers, commands in ((range(1, half), REPORT), (range(half, options.trials), COMMANDS)):
        folder = home.settings.state_dir
        copy_rows(folder / "mlflow.db", _OF_A_RUN, run.info.run_id, numbers, _another_run)
        copy_rows(folder / "studies.db", _OF_A_TRIAL, trial._trial_id, numbers, _another_trial)
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
