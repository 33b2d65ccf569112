"""The reference searches R1 to R3, ours and the peers' one after the other on the same machine.

    python benchmarks/reference_searches.py r1 --data DIR --weights DIR [--trials 64]
        [--peer-trials 4]

Ours is the command a user types, timed from its first to its last moment with empty caches: start,
decoding, features, all trials with pages and models in MLflow, finalist, refit, check in a fresh
process, registration. A peer's time is that of its trials alone. A peer may run fewer trials than
ours (its trials take equally long); its best score then is that of fewer.

Prints a table and writes ``benchmarks/results/reference_<search>_<trials>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from breakhis_search.data.demo import make_demo

HERE = Path(__file__).resolve().parent
TRIALS = {"r1": 64, "r2": 16, "r3": 16}
PEERS = {
    "keras_tuner": ("keras_tuner_peer.py",),
    "optuna_mlflow": ("optuna_mlflow_peer.py",),
    "optuna_untracked": ("optuna_mlflow_peer.py", "--untracked"),
}


def run_ours(search: str, trials: int, data: Path, weights: Path | None, folder: Path) -> dict:
    """Run the search as a user does; return its seconds and every trial's end and score."""
    study = HERE.parent / "experiments" / "reference" / f"{search}.yaml"
    command = [sys.executable, "-m", "breakhis_search", "run", "--study", str(study)]
    command += ["--data", str(data), "--trials", str(trials), "--yes"]
    command += ["--weights-dir", str(weights)] if weights else []
    folders = {"BREAKHIS_CACHE": str(folder / "cache"), "PYTHONPATH": str(HERE.parent)}
    environment = {**os.environ, **folders}
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI"):
        environment.pop(name, None)
    start = time.time()
    with (folder / "ours.log").open("w") as log:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        sys.exit((folder / "ours.log").read_text()[-3000:])
    total = time.time() - start
    client = MlflowClient(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, "tags.`breakhis.role` = 'trial'", max_results=5000)
    ends = [(r.info.end_time / 1e3 - start, _score_of(r), r.data.metrics) for r in runs]
    ends.sort(key=lambda end: end[0])
    return {
        "total": total,
        "ends": [end for end, _, _ in ends],
        "scores": [score for _, score, _ in ends],
        "profile": [
            {k.split("/")[1]: v for k, v in metrics.items() if k.startswith("seconds/")}
            for _, _, metrics in ends
        ],
    }


def _score_of(run: object) -> float:
    metrics = run.data.metrics
    return next(v for k, v in metrics.items() if k.startswith("objective/"))


def run_peer(name: str, search: str, trials: int, data: Path, weights: Path | None) -> dict:
    """Run a peer in a process of its own; return what it printed."""
    script, *options = PEERS[name]
    command = [sys.executable, str(HERE / "peers" / script), search, "--data", str(data)]
    command += ["--trials", str(trials), *options]
    command += ["--weights", str(weights)] if weights else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _time_to(ours: dict, score: float) -> float | None:
    return next((t for t, s in zip(ours["ends"], ours["scores"], strict=True) if s >= score), None)


def main() -> None:
    """Run one reference search, ours first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", choices=TRIALS)
    parser.add_argument("--data", type=Path, help="BreaKHis; not for r3, which draws its own")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--peer-trials", type=int, default=4)
    options = parser.parse_args()
    trials = options.trials or TRIALS[options.search]
    weights = options.weights.resolve() if options.weights else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_demo(folder / "demo") if options.search == "r3" else options.data.resolve()
        ours = run_ours(options.search, trials, data, weights, folder)
        print(f"ours: {trials} trials in {ours['total']:.0f} s, best {max(ours['scores']):.4f}")
        peers = {}
        for peer in PEERS:
            peers[peer] = run_peer(peer, options.search, options.peer_trials, data, weights)
            print(f"{peer}: {[round(s, 1) for s in peers[peer]['seconds']]} s a trial", flush=True)
    table = _table(ours, trials, peers)
    print(table)
    file = HERE / "results" / f"reference_{options.search}_{trials}.json"
    result = {"search": options.search, "trials": trials, "ours": ours, "peers": peers}
    file.write_text(json.dumps(result, indent=1) + "\n")


def _table(ours: dict, trials: int, peers: dict[str, dict]) -> str:
    each, best = ours["total"] / trials, max(ours["scores"])
    rate = 3600 / each
    lines = [
        "",
        "| search | trials | median s a trial | trials/h | ours ÷ it | best score | ours there |",
        "|---|---|---|---|---|---|---|",
        f"| ours | {trials} | {each:.2f} (everything) | {rate:.0f} | 1 | {best:.4f} | |",
    ]
    for name, peer in peers.items():
        median, best = statistics.median(peer["seconds"]), max(peer["scores"])
        reached = _time_to(ours, best)
        lines.append(
            f"| {name} | {len(peer['seconds'])} | {median:.1f} | {3600 / median:.0f} "
            f"| {rate * median / 3600:.1f} | {best:.4f} "
            f"| {'never' if reached is None else f'after {reached:.0f} s'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
