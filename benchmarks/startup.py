"""What typing a command costs before anything is done.

    python benchmarks/startup.py

Seconds of ``--help`` and of importing the package as whole processes, medians of 7, and whether
either imports TensorFlow, Keras, MLflow or Optuna. Writes ``benchmarks/results/startup.json``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPETITIONS = 7
HEAVY = ("tensorflow", "keras", "jax", "mlflow", "optuna")
_HELP = "from breakhis_search.cli.app import run_app; run_app(['--help'])"
_TELL = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"


def seconds_of(*arguments: str) -> float:
    """Return the median seconds of a process of this Python."""
    took = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=HERE.parent, check=True, capture_output=True
        )
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def imported_by(code: str) -> list[str]:
    """Return which of the heavy packages a piece of code imports."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{_TELL}"],
        cwd=HERE.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stderr.strip().splitlines()[-1].replace("'", '"'))


def main() -> None:
    """Measure and write down."""
    found = {
        "python": seconds_of("-c", "pass"),
        "import": seconds_of("-c", "import breakhis_search"),
        "help": seconds_of("-m", "breakhis_search", "--help"),
        "imported_by_import": imported_by("import breakhis_search"),
        "imported_by_help": imported_by(_HELP),
    }
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}))
    (HERE / "results" / "startup.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
