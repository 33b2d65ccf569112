"""An MLflow server that goes away, is killed while it takes a file, answers 500 or is slow.

    python -m tests.faults.server_faults [--trials 20] [--out FILE] [SCENARIO…]

Each scenario is one real search, tracked through a proxy by a real ``mlflow server``. What must
hold: the search ends as it should; a trial takes no longer than without a fault; every record is on
the server as if sent once, and every file byte by byte as it was made. Prints, and writes, trials
per second of each scenario against ``none``; exit code 1 where one is more than 5 % slower.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from breakhis_search.data.demo import make_demo
from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.worker_process import work
from breakhis_search.settings import read_settings
from breakhis_search.study.report import make_report
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from tests.faults.aims import Aim, judge
from tests.faults.kill_campaign import EPOCHS, FOLDS, ROOT
from tests.faults.kill_campaign import search as run_search
from tests.patience import PATIENCE_S

SCENARIOS = ("stopped", "killed", "errors", "slow")
STOPPED_S, SLOW_S = 60.0, 1.0
KEPT = "CAMPAIGN_KEPT"


def keeping_report(journal: Journal) -> Mapping[str, float]:
    """Make a report, and keep what was made: the journal drops it once it is delivered."""
    found = make_report(journal)
    target = Path(os.environ[KEPT]) / journal.uid
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(journal.artifacts, target)
    return found


def epochs_in(journal: str) -> int:
    """How many epochs a journal of a trial tells of."""
    return len(re.findall(r'"epoch/fold_\d+/loss"', journal))


def searching_only(pipe: Connection, assignment: Assignment) -> None:
    """Work, but select nobody: it is the search that is measured."""
    from breakhis_search.workflow import search

    search.select_winner = lambda *_: None
    work(pipe, assignment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A real server on one database, which can be killed and started again.

    Args:
        folder: For its database, its files and its log.
        gives_way: Whether whatever else runs on the machine goes first, at once.
    """

    def __init__(self, folder: Path, *, gives_way: bool = False) -> None:
        folder.mkdir()
        self.folder, self.port, self._gives_way = folder, _free_port(), gives_way
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "files")]
        with (self.folder / "log").open("ab") as log:
            # A group, so that its children are killed with it, but no session: Linux weighs
            # sessions against each other, and a sleeper of one does not interrupt another.
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                process_group=0,
                # Its eight workers for jobs of language models would start with it every time.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        if self._gives_way:  # so will its children
            os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise SystemExit((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Proxy(ThreadingHTTPServer):
    """Passes requests on, or does not, as its ``mode`` says."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.mode, self.uploads = server.port, "none", 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.mode == "slow":
            time.sleep(SLOW_S)
        if self.server.mode == "errors":
            self._answer(500, [], b'{"error_code": "INTERNAL_ERROR", "message": "planted"}')
            return
        if self.command == "PUT":
            self.server.uploads += 1
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as a dead server does: no answer at all
            self.connection.close()
            return
        self._answer(answer.status, answer.getheaders(), content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        hop = {"connection", "transfer-encoding", "content-length", "date", "server"}
        for name, value in headers:
            if name.lower() not in hop:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - as the base names them

    def log_message(self, *_args: Any) -> None:
        return


def plan(scenario: str, server: Server, proxy: Proxy, epochs: Any, during: list[int]) -> None:
    """Do what a scenario is about, once the search is under way; tell how many epochs passed."""
    while epochs() < 2 * FOLDS * EPOCHS:
        time.sleep(0.1)
    before = epochs()
    if scenario == "stopped":
        server.kill()
        time.sleep(STOPPED_S)
        server.start()
    elif scenario == "killed":
        for _ in range(3):
            uploads = proxy.uploads
            while proxy.uploads <= uploads:
                time.sleep(0.002)
            server.kill()  # with a file on its way
            time.sleep(2)
            server.start()
    elif scenario == "errors":
        proxy.mode = "errors"
        time.sleep(STOPPED_S / 2)
        proxy.mode = "none"
    elif scenario == "slow":
        proxy.mode = "slow"
        time.sleep(STOPPED_S)
        proxy.mode = "none"
    during.append(epochs() - before)


def run_scenario(scenario: str, trials: int) -> dict[str, Any]:
    """Run one search; return how fast its trials were."""
    from mlflow import MlflowClient

    from tests.faults.soundness import assert_sound

    home = Path(tempfile.mkdtemp(prefix="breakhis-server-"))
    (home / "experiments").symlink_to(ROOT / "experiments")
    data = make_demo(home / "demo", images_per_slide=1, height_px=64, width_px=96)
    # What is measured is whether training waits for it, not that both want the same two cores.
    server = Server(home / "server", gives_way=True)
    server.start()
    proxy = Proxy(server)
    variables = {
        "BREAKHIS_CACHE": str(home / "cache"),
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.server_address[1]}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        KEPT: str(home / "kept"),
    }
    environment = {**os.environ, **variables}
    settings = read_settings(environment, home=home)
    command = [sys.executable, "-m", "tests.faults.server_faults", "--search", str(home)]
    command += ["--data", str(data), "--trials", str(trials)]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def epochs() -> int:
        files = settings.journal_dir.glob("*/records.jsonl")
        return sum(epochs_in(f.read_text()) for f in files)

    during: list[int] = []
    arguments = (scenario, server, proxy, epochs, during)
    fault = threading.Thread(target=plan, args=arguments, daemon=True)
    fault.start()
    try:
        code = process.wait(1500)
        if code:
            raise SystemExit((home / "log").read_text()[-4000:])
        fault.join(STOPPED_S * 2)
        assert during, "what was planned was done"
        assert scenario == "none" or during[0] > 0, "training went on meanwhile"
        os.environ |= {"MLFLOW_TRACKING_URI": variables["MLFLOW_TRACKING_URI"]}
        database = MlflowClient(f"sqlite:///{server.folder / 'server.db'}")
        runs = assert_sound(settings, trials, folds=FOLDS, epochs=EPOCHS, histories=database)
        files = _assert_same_files(runs, home, server.folder / "files")
    finally:
        process.kill()
        server.kill()
        proxy.shutdown()
    # All of a trial: what waits for a server does so between two epochs, not within one.
    rates = [1 / r.data.metrics["seconds/total"] for r in runs]
    told = [line for line in (home / "log").read_text().splitlines() if "MLflow" in line]
    shutil.rmtree(home)
    return {
        "scenario": scenario,
        "rate": statistics.median(rates),
        "seconds": _typical_seconds(runs),
        "epochs_during": during[0],
        "files": files,
        "told": told,
    }


def _typical_seconds(runs: list[Any]) -> dict[str, float]:
    """Median seconds of a trial by phase."""
    told = [
        {k.removeprefix(keys.SECONDS): v for k, v in r.data.metrics.items() if keys.SECONDS in k}
        for r in runs
    ]
    phases = sorted({phase for run in told for phase in run})
    return {p: round(statistics.median(run.get(p, 0.0) for run in told), 3) for p in phases}


def _assert_same_files(runs: list[Any], home: Path, on_server: Path) -> int:
    """Every file of every trial is on the server, byte by byte; return how many."""
    count = 0
    for run in runs:
        kept = home / "kept" / run.data.tags[keys.TRIAL_UID]
        there = on_server / run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
        for file in (f for f in kept.rglob("*") if f.is_file()):
            same = there / file.relative_to(kept)
            assert same.is_file(), f"{same} is missing"
            assert same.read_bytes() == file.read_bytes(), f"{same} is another one"
            count += 1
    return count


def main() -> None:
    """Run the scenarios, or be the search of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        from breakhis_search.engines import local

        local.make_report = keeping_report
        os.environ |= {"CAMPAIGN_KILLS": "0", "CAMPAIGN_SEED": "0"}
        run_search(options.search, options.data, options.trials, 1, searching_only)
        return
    results = []
    # Undisturbed before and after: how much they differ is how much the others may by themselves.
    for scenario in ("none", *options.scenarios, "none"):
        results.append(run_scenario(scenario, options.trials))
        undisturbed = statistics.mean(r["rate"] for r in results if r["scenario"] == "none")
        for found in results:
            found["of_none"] = round(found["rate"] / undisturbed, 3)
        print(json.dumps(results[-1]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    judge(
        [
            Aim(f"trials beside a server that is {r['scenario']}", r["of_none"], 0.95, True)
            for r in results
            if r["scenario"] != "none"
        ]
    )


if __name__ == "__main__":
    main()
