"""What a trial costs late in a long study.

    python benchmarks/long_study.py --data DIR --weights DIR [--trials 64 500 1000 2000]

A study of heads on frozen backbones (the reference search R1) is begun, filled up with complete
trials of random values as if it had run for long, and gone on with for 24 more trials, asked for in
batches of 8. Prints the seconds of one of those, all of a trial, and what the sampler took of them.
Writes ``benchmarks/results/long_study.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import optuna
from mlflow import MlflowClient

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "experiments" / "reference" / "r1.yaml"
MORE = 24


def search(folder: Path, trials: int, data: Path, weights: Path) -> None:
    """Run the study up to so many trials."""
    command = [sys.executable, "-m", "breakhis_search", "run", "--study", str(STUDY), "--yes"]
    command += ["--data", str(data), "--weights-dir", str(weights), "--trials", str(trials)]
    command += ["--set", "space.model/architecture=[mobilenet]"]
    environment = {**os.environ, "BREAKHIS_CACHE": str(folder.parent / "cache")}
    environment["PYTHONPATH"] = str(HERE.parent)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])


def fill_up(folder: Path, trials: int) -> None:
    """Add complete trials of random values until there are so many."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="r1@v1", storage=f"sqlite:///{folder}/mlruns/studies.db")
    like = study.trials[0]
    rng = np.random.default_rng(0)
    more = [_one_like(like, rng) for _ in range(trials - len(study.trials))]
    study.add_trials(more)


def _one_like(like: optuna.trial.FrozenTrial, rng: np.random.Generator) -> optuna.trial.FrozenTrial:
    drawn = {name: _draw(kind, rng) for name, kind in like.distributions.items()}
    steps = {step: rng.random() for step in like.intermediate_values}
    return optuna.trial.create_trial(
        params=drawn,
        distributions=like.distributions,
        value=0.5 * rng.random(),  # the finalists are trials that were really run
        intermediate_values=steps,
        user_attrs={**like.user_attrs, "trial_uid": uuid.uuid4().hex},
    )


def _draw(kind: optuna.distributions.BaseDistribution, rng: np.random.Generator) -> object:
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        return kind.choices[rng.integers(len(kind.choices))]
    if kind.log:
        return kind.low * (kind.high / kind.low) ** rng.random()
    value = rng.uniform(kind.low, kind.high)
    return round(value / kind.step) * kind.step if kind.step else value


def last_trials(folder: Path) -> dict[str, float]:
    """Return seconds of one of the last trials."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, "tags.`breakhis.role` = 'trial'", max_results=5000)
    runs = sorted(runs, key=lambda r: int(r.data.tags["breakhis.trial_number"]))[-MORE:]
    start = min(run.info.start_time for run in runs)
    end = max(run.info.end_time for run in runs)
    return {
        "seconds": (end - start) / 1e3 / len(runs),
        "ask": statistics.median(run.data.metrics["seconds/ask"] for run in runs),
        "others": statistics.median(
            run.data.metrics["seconds/total"] - run.data.metrics.get("seconds/features", 0.0)
            for run in runs
        ),
    }


def main() -> None:
    """Measure a trial at several lengths of a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--trials", type=int, nargs="+", default=[64, 500, 1000, 2000])
    options = parser.parse_args()
    data, weights = options.data.resolve(), options.weights.resolve()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "home"
        folder.mkdir()
        search(folder, 8, data, weights)
        for trials in options.trials:
            fill_up(folder, trials)
            search(folder, trials + MORE, data, weights)
            found[trials] = last_trials(folder)
            print(trials, json.dumps({k: round(v, 3) for k, v in found[trials].items()}))
    file = HERE / "results" / "long_study.json"
    file.write_text(json.dumps({"more": MORE, "after": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
