"""From a search on real images to an answer over HTTP, as one user does it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from breakhis_search.serving.digest import folder_digest
from breakhis_search.tracking import keys
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def promoted(home, real_data: Path):
    """A folder in which a tiny model of the real images was searched and promoted."""
    options = ("--data", str(real_data), "--set=registration.sealed_floors={image/auroc: 0.0}")
    assert home.search("binary", 1, *options) == 0
    assert home.run("promote", "--study", "binary", "--data", str(real_data)) == 0
    return home


def test_served_model_answers_curl_as_predict_does(promoted, real_data: Path, capsys) -> None:
    image = min(real_data.rglob("SOB_M*.png"))
    capsys.readouterr()
    assert promoted.run("predict", "--study", "binary", str(image), "--json") == 0
    [expected] = json.loads(capsys.readouterr().out)["predictions"]

    port = free_port()
    command = [sys.executable, "-m", "breakhis_search", "serve", "--study", "binary"]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=promoted.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        curl = curl_of(server, port)
        asked = curl.replace("image.png", str(image))
        done = subprocess.run(
            ["bash", "-c", asked], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        )
        [answer] = json.loads(done.stdout)["predictions"]
        assert answer["label"] == expected["label"]
        for name in ("probability_benign", "probability_malignant"):
            assert answer[name] == pytest.approx(expected[name], abs=1e-6)
        no_image = promoted.folder / "words.png"
        no_image.write_text("words")
        asked = curl.replace("image.png", str(no_image))
        done = subprocess.run(
            ["bash", "-c", asked], capture_output=True, text=True, check=True, timeout=PATIENCE_S
        )
        assert "row 0 of column 'image': not an image" in done.stdout
        assert "predictions" not in done.stdout
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
        if server.stdout:
            server.stdout.close()
    assert code == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "nothing is left listening"


def curl_of(server: subprocess.Popen[str], port: int) -> str:
    """The command that the server tells to type, as soon as it does."""
    told = ""
    for line in server.stdout or ():  # until it ends
        told += line
        if f"curl -s http://127.0.0.1:{port}/invocations" in line:
            return line.strip()
    raise AssertionError(told)


@pytest.mark.parametrize("pinned", [(), ("--version", "1"), ("--alias", "champion")])
def test_what_is_served_is_the_copy_that_was_checked(searched, monkeypatch, pinned) -> None:
    started = []

    def start(servers, **_) -> None:
        [server] = servers
        folder = Path(server.command[server.command.index("--model-uri") + 1])
        started.append((folder, folder_digest(folder)))

    monkeypatch.setattr("breakhis_search.workflow.serving.serve_group", start)
    serve = ("serve", "--study", "binary", "--demo", "--port", str(free_port()))
    assert searched.run(*serve, *pinned) == 0
    [(folder, digest)] = started
    assert searched.folder not in folder.parents, "who may write to the store changes nothing now"
    version = searched.client.get_model_version("breakhis-binary-demo", "1")
    assert digest == version.tags[keys.PACKAGE_SHA256]
    assert not folder.exists(), "nothing is left of it"


def test_what_cannot_be_served_is_told(searched, capsys) -> None:
    serve = ("serve", "--study", "binary", "--demo")
    assert searched.run(*serve, "--alias", "nobody") == 1
    assert "breakhis-binary-demo has no nobody" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert searched.run(*serve, "--port", port) == 1
        assert f"port {port} cannot be used" in capsys.readouterr().err
    assert searched.run(*serve, "--version", "1", "--alias", "champion") == 2
    client = searched.client
    tag = client.get_model_version("breakhis-binary-demo", "1").tags[keys.PACKAGE_SHA256]
    client.set_model_version_tag("breakhis-binary-demo", "1", keys.PACKAGE_SHA256, "0" * 64)
    try:
        assert searched.run(*serve, "--port", str(free_port())) == 1
        assert "is not what was registered" in capsys.readouterr().err
    finally:
        client.set_model_version_tag("breakhis-binary-demo", "1", keys.PACKAGE_SHA256, tag)
