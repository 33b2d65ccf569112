"""Every exit code that the help names, from the program as it is typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.cli.exit_codes import MEANINGS, ExitCode
from tests.patience import PATIENCE_S, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "breakhis_search"]


@pytest.fixture
def env(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}


def test_the_help_names_every_code(capsys):
    assert run_app(["--help"]) == ExitCode.OK
    text = " ".join(capsys.readouterr().out.split())
    assert set(MEANINGS) == set(ExitCode)
    for code, meaning in MEANINGS.items():
        assert f"{code:d} {meaning.split('(')[0].strip()}" in text


def test_0_is_done(env):
    assert subprocess.run([*PROGRAM, "--version"], env=env, check=False).returncode == 0


def test_1_is_an_error_in_one_line(env):
    done = subprocess.run(
        [*PROGRAM, "run", "--study", "nosuch"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no study 'nosuch'")
    assert done.stderr.count("\n") == 1


def test_2_is_wrong_usage(env):
    done = subprocess.run(
        [*PROGRAM, "run", "--trials", "0"], env=env, capture_output=True, check=False
    )
    assert done.returncode == 2


def test_3_is_predict_that_could_not_score_a_file(env, monkeypatch, capsys):
    model = SimpleNamespace(demo=False, in_words=lambda: "a model", name="m", version="1")
    table = pd.DataFrame({"image": [], "label": [], "probability_benign": []})
    answer = SimpleNamespace(
        model=model, table=table, bad={"a.png": "no picture"}, doubts={}, unexplained=None
    )
    monkeypatch.setattr(
        "breakhis_search.workflow.prediction.predict_images", lambda *_, **__: answer
    )
    assert run_app(["predict", "--study", "binary", "a.png"]) == 3
    assert "not scored: a.png (no picture)" in capsys.readouterr().out


def test_3_is_a_replay_that_came_to_other_numbers(env, monkeypatch, capsys):
    from breakhis_search.workflow.replay import Replayed

    found = Replayed(
        run_id="r",
        trial=1,
        study="binary@v1",
        ingredients=(),
        metrics={"image/auroc": (0.5, 0.6)},
        missing=(),
        is_deterministic=True,
    )
    monkeypatch.setattr("breakhis_search.workflow.replay.replay", lambda *_, **__: found)
    assert run_app(["replay", "r"]) == 3
    assert "Not the same" in capsys.readouterr().out


# The test runner ignores SIGINT where it runs on several cores, and processes inherit that.
HEEDING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " runpy.run_module('breakhis_search', run_name='__main__', alter_sys=True)"
)


def test_130_is_interrupted(env):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HEEDING,
            "data",
            "demo",
            "--out",
            "demo",
            "--images-per-slide",
            "99",
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def has_begun() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return any(Path().rglob("*.png"))

    wait_until(has_begun)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in told
