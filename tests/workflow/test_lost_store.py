"""A store or a disk that gives way in the middle of a run: one line, nothing lost, then go on."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.tracking import keys
from breakhis_search.workflow.overview import read_overview
from tests.patience import wait_until


class Server:
    """A real ``mlflow server`` that can be killed and started again on the same database."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        files = ["--artifacts-destination", str(self._folder / "files"), "--workers", "1"]
        place = ["--host", "127.0.0.1", "--port", str(self._port)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *files, *place],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=10):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """End it and its worker at once, as a power cut would."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        # Three, as in real use, would only make the test wait longer for the same refusal.
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        yield server
    finally:
        server.kill()


pytestmark = pytest.mark.usefixtures("registers_quickly")


@pytest.fixture
def at_epoch(monkeypatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something after the given epoch of the run, once."""

    def plan(at: int, action: Callable[[], None]) -> None:
        seen = iter(range(1, 1000))

        def epoch_finished(*_args: object, **_kwargs: object) -> None:
            if next(seen) == at:
                action()

        name = "breakhis_search.cli.progress.TerminalObserver.epoch_finished"
        monkeypatch.setattr(name, epoch_finished)

    return plan


def runs(home, role: str) -> list[Any]:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    return client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = '{role}'")


def trials(home) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(
        study_name="binary-demo@v1", storage=home.settings.studies_uri
    ).get_trials(deepcopy=False)


def the_error(capsys) -> str:
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1, "one line"
    return message


def assert_both_stores_agree(home) -> None:
    """One run per trial, said to have ended as Optuna says, and nothing that still waits."""
    found = runs(home, "trial")
    assert set(Counter(r.data.tags[keys.TRIAL_UID] for r in found).values()) == {1}
    by_uid = {r.data.tags[keys.TRIAL_UID]: r for r in found}
    for trial in trials(home):
        run = by_uid[trial.user_attrs["trial_uid"]]
        wanted = {TrialState.COMPLETE: ("FINISHED", "complete")}
        status, state = wanted.get(trial.state, ("FAILED", "interrupted"))
        assert (run.info.status, run.data.tags[keys.STATE]) == (status, state)
    assert len(runs(home, "study")) == 1
    assert read_overview(home.settings).undelivered == 0


def test_a_server_that_dies_during_a_search_costs_nothing(home, server, at_epoch, capsys):
    at_epoch(5, server.kill)  # 2 folds of 2 epochs a trial: in the second trial
    assert home.search("binary", 2) == 1
    message = the_error(capsys)
    assert f"MLflow at {server.address} refused" in message
    assert "run the same command again" in message
    assert [t.state.name for t in trials(home)] == ["COMPLETE", "RUNNING"]
    values = trials(home)[1].params

    server.start()
    assert home.search("binary", 2) == 0
    assert [t.state.name for t in trials(home)] == ["COMPLETE", "COMPLETE"]
    assert trials(home)[1].params == values
    assert_both_stores_agree(home)
    complete = [r for r in runs(home, "trial") if r.data.tags[keys.STATE] == "complete"]
    for run in complete:
        history = home.client.get_metric_history(run.info.run_id, "epoch/fold_1/loss")
        assert [m.step for m in history] == [0, 1]
        assert len(run.outputs.model_outputs) == 1
    assert len(home.client.search_model_versions("name = 'breakhis-binary-demo'")) == 1


def no_space(*_args: object, **_kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "place",
    [
        "breakhis_search.tracking.record_file.os.fsync",
        "breakhis_search.study.report.write_parquet",
        "breakhis_search.tracking.model_writer.save_keras_model",
    ],
    ids=["journal", "predictions", "model"],
)
def test_a_disk_that_fills_up_during_a_search_costs_nothing(
    home, at_epoch, monkeypatch, capsys, place
):
    with monkeypatch.context() as patch:
        at_epoch(1, lambda: patch.setattr(place, no_space))
        assert home.search("binary", 1) == 1
        message = the_error(capsys)
        assert "cannot be written (No space left on device)" in message
        assert "free space" in message
    assert home.search("binary", 1) == 0
    assert [t.state.name for t in trials(home)] == ["COMPLETE"]
    assert_both_stores_agree(home)


def test_a_disk_that_fills_up_under_the_page_of_a_trial_costs_no_trial(
    home, at_epoch, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        place = "breakhis_search.study.artifacts.write_parquet"
        at_epoch(1, lambda: patch.setattr(place, no_space))
        assert home.search("binary", 1) == 1
        assert "cannot be written (No space left on device)" in the_error(capsys)
    assert home.search("binary", 1) == 0
    assert [t.state.name for t in trials(home)] == ["COMPLETE"]
    assert_both_stores_agree(home)


def test_a_disk_that_fills_up_while_images_are_decoded_is_one_line(home, monkeypatch, capsys):
    monkeypatch.setenv("BREAKHIS_CACHE", str(home.folder / "cache"))
    monkeypatch.setattr(np.lib.format, "open_memmap", no_space)
    assert home.search("binary", 1) == 1
    assert "image cache" in the_error(capsys)
    assert not list((home.folder / "cache" / "images").iterdir()), "no half-written file is left"
