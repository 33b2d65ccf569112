"""``doctor``: what works, what does not, and what to do about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.data.demo import make_demo
from breakhis_search.training.devices import Device

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=48, width_px=72)


@pytest.fixture
def place(tmp_path, monkeypatch, demo) -> Path:
    """A user's folder with data; the device is looked at in one test only, it loads Keras."""
    shutil.copytree(demo, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    gpu = Device("gpu", "a test", "tensorflow", "float32")
    monkeypatch.setattr(
        "breakhis_search.training.devices.prepare_device", lambda *_a, **_k: gpu, raising=True
    )
    return tmp_path


def examine(capsys, *options: str, code: int = 0) -> dict[str, dict[str, str]]:
    """Findings by subject."""
    assert run_app(["doctor", "--json", *options]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.startswith("error: not everything works") == bool(code)
    return {f["subject"]: f for f in json.loads(captured.out)}


def test_a_place_where_everything_works(place, capsys):
    findings = examine(capsys)
    assert {f["state"] for f in findings.values()} <= {"ok", "note"}
    assert findings["data"]["state"] == "note"
    assert "SYNTHETIC demo" in findings["data"]["detail"]
    for subject in ("Python", "keras", "optuna", "MLflow store", "study storage", "disk", "device"):
        assert findings[subject]["state"] in ("ok", "note"), subject


def test_the_table_for_people_says_the_same(place, capsys):
    assert run_app(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\nok     MLflow store: sqlite:///" in out
    assert "\nnote   data: " in out


def test_a_place_that_cannot_be_written(place, capsys):
    (place / "mlruns").write_text("a file where a folder should be")
    findings = examine(capsys, code=1)
    for subject in ("MLflow store", "study storage", "disk"):
        assert findings[subject]["state"] == "error", subject
    assert "cannot be written" in findings["MLflow store"]["detail"]
    assert "to do:" in findings["study storage"]["detail"]
    assert findings["data"]["state"] == "note", "what works is still looked at"


def test_a_cache_that_cannot_be_written(place, capsys, monkeypatch):
    (place / "cache").write_text("a file where a folder should be")
    finding = examine(capsys, code=1)["data"]
    assert finding["state"] == "error"
    assert "BREAKHIS_CACHE" in finding["detail"]


@pytest.mark.parametrize(
    ("variable", "subject", "address", "says"),
    [
        ("MLFLOW_TRACKING_URI", "MLflow store", "http://127.0.0.1:9", "does not answer"),
        ("MLFLOW_TRACKING_URI", "MLflow store", "./mlruns", "is a folder"),
        ("MLFLOW_TRACKING_URI", "MLflow store", "htp://nowhere", "refused"),
        ("BREAKHIS_STUDIES_URI", "study storage", "nonsense", "cannot be used"),
        ("BREAKHIS_STUDIES_URI", "study storage", "postgresql://u:pw@127.0.0.1:9/x", "cannot be"),
    ],
)
def test_a_bad_address_is_named(place, capsys, monkeypatch, variable, subject, address, says):
    monkeypatch.setenv(variable, address)
    finding = examine(capsys, code=1)[subject]
    assert finding["state"] == "error"
    assert says in finding["detail"]
    assert "to do:" in finding["detail"]
    assert ":pw@" not in finding["detail"]


@pytest.mark.parametrize("broken", ["truncated", "no images"])
def test_data_a_search_would_refuse(place, capsys, broken):
    files = sorted((place / "data").rglob("*.png"))
    if broken == "truncated":
        files[0].write_bytes(files[0].read_bytes()[:-200])
    else:
        for file in files:
            file.unlink()
    finding = examine(capsys, code=1)["data"]
    assert finding["state"] == "error"
    assert ("data check" if broken == "truncated" else "no usable image") in finding["detail"]


def test_data_that_is_not_there(place, capsys):
    finding = examine(capsys, "--data", "nowhere", code=1)["data"]
    assert "no such folder: nowhere" in finding["detail"]


def test_weights_that_no_study_here_searches_share_a_line(place, capsys, monkeypatch):
    (place / "experiments").symlink_to(EXPERIMENTS)
    cpu = Device("cpu", "a test", "tensorflow", "float32")
    monkeypatch.setattr(
        "breakhis_search.training.devices.prepare_device", lambda *_a, **_k: cpu, raising=True
    )
    monkeypatch.setenv("KERAS_HOME", str(place / "keras"))
    findings = examine(capsys)
    assert [s for s in findings if "weights" in s] == [
        "weights of densenet121",
        "weights of mobilenet",
        "other weights",
    ]
    assert "--weights-dir" in findings["weights of mobilenet"]["detail"]
    assert "vgg16 absent" in findings["other weights"]["detail"]
    assert all(len(f["detail"]) < 250 for f in findings.values() if "weights" in f["subject"])


def test_a_study_file_that_is_broken_is_named(place, capsys):
    (place / "experiments").mkdir()
    (place / "experiments" / "mine.yaml").write_text("name: [unclosed")
    finding = examine(capsys, code=1)["study files"]
    assert "mine.yaml" in finding["detail"]


def test_weights_that_are_there_are_named(place, capsys, real_weights):
    findings = examine(capsys, "--weights-dir", str(real_weights))
    assert findings["weights of mobilenet"]["state"] == "ok"
    assert findings["weights of vgg16"]["state"] == "note"
