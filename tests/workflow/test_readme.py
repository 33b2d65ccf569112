"""What the README says to type works, in the order it stands there."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
import yaml

from breakhis_search.cli.app import run_app
from breakhis_search.comparison.history import champion_of
from breakhis_search.settings import read_settings
from breakhis_search.tracking.store import open_store

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()


def commands() -> list[list[str]]:
    """Arguments of every ``$ python -m breakhis_search …`` line, comments left out."""
    lines = re.findall(r"^\$ python -m breakhis_search (.+)$", README, re.MULTILINE)
    return [line.split("#")[0].split() for line in lines]


@pytest.fixture(scope="module")
def archive(tmp_path_factory, tiny_demo) -> Path:
    """What the data set's server would send: an archive with ``BreaKHis_v1`` on top."""
    folder = tmp_path_factory.mktemp("server")
    with tarfile.open(folder / "BreaKHis_v1.tar.gz", "w:gz") as tar:
        tar.add(tiny_demo / "BreaKHis_v1", "BreaKHis_v1")
    return folder


@pytest.fixture
def server(archive):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(archive))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/BreaKHis_v1.tar.gz"
        serving.shutdown()


def shrink(study: dict) -> dict:
    """The shipped study with a full profile that ends in seconds, and no floors to fall below."""
    study["registration"]["floors"] = {}
    study["registration"]["sealed_floors"] = {"image/balanced_accuracy": 0.0}
    study["profiles"]["full"] = {
        "data": {"height_px": 32, "width_px": 48},
        "protocol": {"folds": 2},
        "training": {"max_epochs": 1, "head_epochs": 0},
        "search": {"trials": 2},
        "space": {"model/architecture": "small_cnn", "small_cnn/blocks": 2},
    }
    return study


def test_every_command_in_the_readme_works(
    tmp_path, monkeypatch, server, session_environment, tiny_demo
):
    (tmp_path / "experiments").mkdir()
    for file in (REPOSITORY / "experiments").glob("*.yaml"):
        shrunk = shrink(yaml.safe_load(file.read_text()))
        (tmp_path / "experiments" / file.name).write_text(yaml.safe_dump(shrunk))
    shutil.copy(next(tiny_demo.rglob("*.png")), tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("breakhis_search.workflow.dataset.SOURCE_URL", server)
    monkeypatch.setattr("breakhis_search.cli.run._confirm_slow", lambda *_: None)
    typed = commands()
    assert len(typed) >= 8
    for arguments in typed:
        if arguments[0] in ("ui", "serve"):
            continue  # until Ctrl-C: tested in test_ui.py and test_serving.py
        if arguments[0] == "promote":
            assert champion_of(open_store(read_settings()), "breakhis-binary") is None
        assert run_app(arguments) == 0, arguments
    assert str(champion_of(open_store(read_settings()), "breakhis-binary").version) == "1"


def test_the_python_in_the_readme_runs(capsys):
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out == "adenosis 14-22549 folds\n"


@pytest.mark.parametrize("target", ["install", "run"])
def test_the_make_targets_of_the_readme_exist(target):
    assert f"make {target}" in README
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_link_to_a_file_in_the_readme_leads_somewhere():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (REPOSITORY / link).exists(), link
