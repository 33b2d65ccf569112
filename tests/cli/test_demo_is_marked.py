"""Commands that look at data say that the demo is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.data.demo import make_demo

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
BANNER = "SYNTHETIC DEMO: drawn pictures"
COMMANDS = [["check"], ["describe"], ["splits", "--study", "binary"]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("marked") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=48, width_px=72)


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_the_banner_stands_above_everything(demo, capsys, command):
    assert run_app(["data", *command, "--data", str(demo)]) == 0
    assert capsys.readouterr().out.startswith(BANNER)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_json_says_it_too(demo, capsys, command):
    assert run_app(["data", *command, "--data", str(demo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["demo"] is True


def test_check_does_not_ask_for_the_rest_of_a_demo(demo, capsys):
    assert run_app(["data", "check", "--data", str(demo)]) == 0
    out = capsys.readouterr().out
    assert "unpack" not in out
    assert "176 usable images, 0 errors, 0 notices;" in out


def test_real_images_are_not_called_a_demo(real_data, capsys):
    assert run_app(["data", "describe", "--data", str(real_data), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["demo"] is False
    assert answer["rows"][-1]["total"] > 300


def test_status_of_an_unused_folder_creates_nothing(tmp_path, capsys):
    (tmp_path / "experiments").unlink()
    assert run_app(["status"]) == 0
    out = capsys.readouterr().out
    assert f"Nothing was searched here yet: looked in {tmp_path / 'mlruns'}" in out
    assert "cd to the clone" in out
    assert list(tmp_path.iterdir()) == []


def test_status_of_an_unused_folder_is_json_too(capsys):
    assert run_app(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "studies": [],
        "models": [],
        "undelivered": 0,
        "waiting": {"records": 0, "oldest": None},
        "set_aside": {},
        "elsewhere": {},
        "mlflow_says": None,
    }
