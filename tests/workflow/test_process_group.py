"""A server and what it starts end together, whoever asks for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.workflow import process_group
from breakhis_search.workflow.process_group import Server, serve_group
from tests.patience import PATIENCE_S

# Starts a child of its own, writes the ids of both, and would go on for a minute.
FAMILY = """
import os, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
print("Traceback of a server", file=sys.stderr)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def heeded_signals():
    """No signal is ignored, although the tests may run under nohup or as a background job."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def serve(
    script: str, *arguments: str, is_up=lambda: False, when_up=lambda: None, timeout=PATIENCE_S
):
    command = [sys.executable, "-c", script, *arguments]
    server = Server("the server", command, os.environ, is_up)
    serve_group([server], when_up=when_up, start_timeout_s=timeout)


def is_running(pid: int) -> bool:
    """Whether a process lives; one that ended and was not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_this_process_ends_the_server_and_its_children(number, tmp_path, capfd):
    ids = tmp_path / "ids"
    serve(FAMILY, str(ids), is_up=ids.exists, when_up=lambda: os.kill(os.getpid(), number))
    assert not [pid for pid in ids.read_text().split() if is_running(int(pid))]
    assert capfd.readouterr().err == ""


def test_a_server_deaf_to_the_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(process_group, "_GRACE_S", 0.3)
    ids = tmp_path / "ids"
    when_up = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    serve(FAMILY, str(ids), "deaf", is_up=ids.exists, when_up=when_up)
    assert not [pid for pid in ids.read_text().split() if is_running(int(pid))]


def test_the_handlers_of_this_process_are_as_before(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ids = tmp_path / "ids"
    when_up = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    serve(FAMILY, str(ids), is_up=ids.exists, when_up=when_up)
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


def test_a_server_that_fails_shows_its_last_words():
    script = "import sys; print('no such database', file=sys.stderr); sys.exit(3)"
    with pytest.raises(TrackingError, match=r"(?s)ended with exit code 3.*no such database"):
        serve(script)


def test_a_server_that_never_answers_is_ended(tmp_path):
    ids = tmp_path / "ids"
    with pytest.raises(TrackingError, match="did not answer within 5 s"):
        serve(FAMILY, str(ids), timeout=5.0)
    assert not [pid for pid in ids.read_text().split() if is_running(int(pid))]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As under nohup: the hang-up of the terminal must not end the server."""
    script = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from breakhis_search.workflow.process_group import Server, serve_group\n"
        "def up():\n"
        "    os.kill(os.getpid(), signal.SIGHUP); print('still here', flush=True)\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "server = Server('sleep', sleep, os.environ, is_up=lambda: True)\n"
        "serve_group([server], when_up=up, start_timeout_s=600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "still here\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == 0
