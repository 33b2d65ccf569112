"""The reference searches R1 to R3, ours and the peers' one after the other on the same machine.

    python benchmarks/reference_searches.py r1 --data DIR --weights DIR [--trials 64]
        [--repetitions 3] [--peer-trials 3] [--peers keras_tuner …] [--server]

Ours is the command a user types, with empty caches and each repetition with a seed of its own, so
that a best score is not that of one draw. It is timed three times: until its last trial has
ended (``searched``), until MLflow holds every trial with its pages (``tracked``), and until the
command ends (``total``: finalist, refit, check in a fresh process and registration as well, which
no peer does). A peer's time is that of its trials alone. Peers run with each backbone of the search
by itself, so that none is lucky with what it draws, and with oneDNN switched on as ours has it,
which TensorFlow by itself leaves off on some processors. A peer may run fewer trials than ours (its
trials take equally long); its best score then is that of fewer. ``--peer-trials 0`` leaves the
peers out; ``--server`` tracks ours in an ``mlflow server`` on this machine instead of SQLite.

``--whole`` measures nothing but Keras Tuner's search of all trials over all backbones, and adds
it to what was measured before: only then its final best score is known. It takes hours; with
``--folder`` one that was cut off goes on. How long it takes is told by the trials that were timed
beside ours, so the machine may do other things meanwhile.

Prints a table and writes ``benchmarks/results/reference_<search>_<trials>[_server].json``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from summary import seconds_of, seconds_of_whole

from breakhis_search.data.demo import make_demo
from breakhis_search.training.devices import BACKEND_VARIABLES

HERE = Path(__file__).resolve().parent
TRIALS = {"r1": 64, "r2": 16, "r3": 16}
BACKBONES = {"r1": ("mobilenet", "densenet121"), "r2": ("mobilenet",), "r3": (None,)}
PEERS = {
    "keras_tuner": ("keras_tuner_peer.py",),
    "optuna_mlflow": ("optuna_mlflow_peer.py",),
    "optuna_untracked": ("optuna_mlflow_peer.py", "--untracked"),
}


@contextmanager
def mlflow_server() -> Iterator[str]:
    """Run an MLflow server on this machine; yield its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", f"{folder}/artifacts", "--workers", "1"]
        log = (Path(folder) / "log").open("w")
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)
            log.close()


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=1)  # noqa: S310 - our own server
        except OSError:
            time.sleep(0.5)
        else:
            return
    sys.exit(f"{address} does not answer")


def run_ours(
    search: str, trials: int, data: Path, weights: Path | None, server: str | None, seed: int
) -> dict:
    """Run the search as a user does; return its seconds and every trial's end and score."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = HERE.parent / "experiments" / "reference" / f"{search}.yaml"
        command = [sys.executable, "-m", "breakhis_search", "run", "--study", str(study), "--new"]
        command += ["--data", str(data), "--trials", str(trials), "--yes"]
        command += ["--set", f"search.seed={seed}"]
        command += ["--weights-dir", str(weights)] if weights else []
        folders = {"BREAKHIS_CACHE": str(folder / "cache"), "PYTHONPATH": str(HERE.parent)}
        environment = {**os.environ, **folders}
        for variable in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI"):
            environment.pop(variable, None)
        if server:
            environment["MLFLOW_TRACKING_URI"] = server
        start = time.time()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-3000:])
        total = time.time() - start
        runs = _trials_of(server or f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}", start)
    return {
        "total": total,
        "searched": max(run["end"] for run in runs),
        "tracked": max(run["shown"] for run in runs),
        "best": max(run["score"] for run in runs),
        "trials": runs,
    }


def _trials_of(uri: str, start: float) -> list[dict]:
    """End and arrival of its page (seconds after the start), score, memory, profile; by end."""
    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    condition = f"tags.`breakhis.role` = 'trial' and attributes.start_time >= {int(start * 1000)}"
    found = [
        {
            "end": run.info.end_time / 1e3 - start,
            "shown": _arrival_of_page(run) - start,
            "score": next(v for k, v in run.data.metrics.items() if k.startswith("objective/")),
            "memory_mb": run.data.metrics["device/peak_memory_mb"],
            "seconds": {
                name.removeprefix("seconds/"): value
                for name, value in run.data.metrics.items()
                if name.startswith("seconds/")
            },
        }
        for run in client.search_runs(ids, condition, max_results=5000)
    ]
    return sorted(found, key=lambda run: run["end"])


def _arrival_of_page(run: Run) -> float:
    """When the page of a trial came to MLflow, seconds since 1970; its end, where a server has it.

    A record has the time of what it records; the file has that of its arrival.
    """
    place = urllib.parse.urlparse(run.info.artifact_uri)
    page = Path(place.path) / "figures" / "trial.html"
    is_here = place.scheme in ("", "file") and page.exists()
    return page.stat().st_mtime if is_here else run.info.end_time / 1e3


def run_peer(
    name: str,
    backbone: str | None,
    search: str,
    trials: int,
    data: Path,
    weights: Path | None,
    keep: Callable[[dict], None] = lambda _: None,
    folder: Path | None = None,
) -> dict:
    """Run a peer in a process of its own; return what it printed last, keep it after each trial."""
    script, *options = PEERS[name]
    options += ["--folder", str(folder)] if folder else []
    command = [sys.executable, str(HERE / "peers" / script), search, "--data", str(data)]
    command += ["--trials", str(trials), *options]
    command += ["--weights", str(weights)] if weights else []
    command += ["--backbone", backbone] if backbone else []
    environment = {**BACKEND_VARIABLES, **os.environ}
    found: dict = {}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as peer,
    ):
        for line in peer.stdout:
            if line.startswith('{"peer"'):
                found = json.loads(line)
                keep(found)
        if peer.wait():
            errors.seek(0)
            sys.exit(errors.read()[-3000:])
    return found


def time_to(ours: dict, score: float) -> float | None:
    """Return after how many seconds ours had a trial as good as that."""
    return next((run["end"] for run in ours["trials"] if run["score"] >= score), None)


def main() -> None:
    """Run one reference search, ours first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("search", choices=TRIALS)
    parser.add_argument("--data", type=Path, help="BreaKHis; not for r3, which draws its own")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--peer-trials", type=int, default=3, help="of each backbone")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--server", action="store_true")
    parser.add_argument("--whole", action="store_true", help="Keras Tuner's whole search alone")
    parser.add_argument("--folder", type=Path, help="where the whole search is kept")
    options = parser.parse_args()
    trials = options.trials or TRIALS[options.search]
    weights = options.weights.resolve() if options.weights else None
    suffix = "_server" if options.server else ""
    file = HERE / "results" / f"reference_{options.search}_{trials}{suffix}.json"
    if options.whole:
        _add_whole(options, trials, weights, file)
        return
    result = {"search": options.search, "trials": trials, "ours": [], "peers": {}}
    if file.is_file():  # hours of a peer's, which this does not measure again
        earlier = json.loads(file.read_text())
        result |= {"whole": earlier["whole"]} if "whole" in earlier else {}
    with (
        tempfile.TemporaryDirectory() as name,
        mlflow_server() if options.server else nullcontext() as server,
    ):
        demo = options.search == "r3"
        data = make_demo(Path(name) / "demo") if demo else options.data.resolve()
        for seed in range(options.repetitions):
            ours = run_ours(options.search, trials, data, weights, server, seed)
            print(
                f"ours: {trials} trials in {ours['searched']:.0f} s,"
                f" registered after {ours['total']:.0f} s, best {ours['best']:.4f}",
                flush=True,
            )
            result["ours"].append(ours)
            file.write_text(json.dumps(result, indent=1) + "\n")
        for peer in options.peers if options.peer_trials else ():
            for backbone in BACKBONES[options.search]:
                found = run_peer(peer, backbone, options.search, options.peer_trials, data, weights)
                told = [round(s, 1) for s in found["seconds"]]
                print(f"{peer} {backbone or ''}: {told} s a trial", flush=True)
                result["peers"].setdefault(peer, {})[backbone or "small_cnn"] = found
                file.write_text(json.dumps(result, indent=1) + "\n")
    print(_table(result["ours"], trials, result["peers"]))


def _add_whole(options: argparse.Namespace, trials: int, weights: Path | None, file: Path) -> None:
    """Let Keras Tuner search the whole space; add what it found to the results."""
    result, peer = json.loads(file.read_text()), "keras_tuner"
    if peer not in result["peers"]:
        sys.exit(f"{file} has no trials of {peer} beside ours: run without --peer-trials 0 first")

    def keep(found: dict) -> None:
        result["whole"] = found
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{len(found['scores'])} trials, best {max(found['scores']):.4f}", flush=True)

    data, folder = options.data.resolve(), options.folder
    found = run_peer(peer, None, options.search, trials, data, weights, keep, folder)
    there = [time_to(run, max(found["scores"])) for run in result["ours"]]
    seconds = seconds_of_whole(found, result["peers"][peer])
    print(f"as good as its best, ours are after {there} s; it takes {seconds:.0f} s")


def _table(ours: list[dict], trials: int, peers: dict[str, dict]) -> str:
    parts = ("searched", "tracked", "total")
    each = {part: statistics.median(run[part] for run in ours) / trials for part in parts}
    best = statistics.median(run["best"] for run in ours)
    told = " | ".join(f"{each[part]:.2f} s" for part in parts)
    lines = [
        "",
        "| search | s a trial | ÷ ours, searched | tracked | everything | best | ours there |",
        "|---|---|---|---|---|---|---|",
        f"| ours, {trials} trials | | {told} | {best:.4f} | |",
    ]
    for name, peer in peers.items():
        best = max(max(found["scores"]) for found in peer.values())
        there = [time_to(run, best) for run in ours]
        reached = "never" if None in there else f"after {statistics.median(there):.0f} s"
        ratios = " | ".join(f"{seconds_of(peer) / each[part]:.1f}" for part in parts)
        lines.append(f"| {name} | {seconds_of(peer):.1f} | {ratios} | {best:.4f} | {reached} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
