"""--quiet, --verbose, NO_COLOR: what is said, and how, without any search or Keras."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from breakhis_search.cli import console
from breakhis_search.cli.app import run_app
from breakhis_search.cli.console import Volume
from breakhis_search.cli.progress import TerminalObserver
from breakhis_search.data.demo import make_demo
from breakhis_search.study.progress import SearchSize, TrialSummary

REPOSITORY = Path(__file__).resolve().parents[2]

SHOW = """
import sys
from breakhis_search.cli import console
from breakhis_search.cli.progress import TerminalObserver
from breakhis_search.study.progress import SearchSize, TrialSummary

console.say("a sentence of [progress]")
observer = TerminalObserver()
observer.search_started(SearchSize(2, 0, folds=2, epochs=3, best=None, repetitions=0))
observer.trial_started(0, {"model/architecture": "small_cnn", "sampling/strategy": "focal"})
observer.epoch_finished(number=0, fold=0, epoch=1, score=0.5, images_per_s=10.0)
observer.trial_finished(TrialSummary(0, "complete", 0.75, 12.0))
observer.close()
with console.progress_bar("scoring") as progress:
    progress(1, 2)
with console.at_work("reading [what is kept]"):
    pass
console.print_table("Table", ["a"], [["b"]])
console.warn("careful")
console.print_error("wrong")
heavy = {"tensorflow", "keras", "mlflow", "optuna"} & set(sys.modules)
console.tell(f"heavy: {sorted(heavy)}")
"""


@pytest.fixture(autouse=True)
def _as_before():
    """Volume, warnings and loggers as they were."""
    level = logging.getLogger("breakhis_search").level
    handlers = list(logging.getLogger().handlers)
    with warnings.catch_warnings():
        yield
    console.set_volume(Volume.NORMAL)
    logging.getLogger("breakhis_search").setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def demo(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return make_demo(tmp_path / "demo", images_per_slide=1, height_px=48, width_px=72)


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", **more}


def on_a_terminal(**more: str) -> str:
    """What the script writes on a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdout=its, stderr=its, env=environment(**more)
    )
    os.close(its)
    text = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert process.wait() == 0, text
    return text.decode()


def test_a_terminal_has_colours_and_a_live_line():
    text = on_a_terminal()
    assert "\x1b[31m" in text.replace("\x1b[1;31m", "\x1b[31m")
    assert "\x1b[2K" in text  # a line is cleared and drawn again
    assert "reading [what is kept] …" in text


def test_no_color_gives_plain_lines_on_a_terminal():
    text = on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in text
    assert "1/2 trial 0    0.7500  small_cnn, focal  12 s" in text
    assert "error: wrong" in text
    assert "heavy: []" in text


def test_an_empty_no_color_says_nothing():
    assert "\x1b" in on_a_terminal(NO_COLOR="")


def test_a_pipe_gets_plain_lines():
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "a sentence of [progress]" in done.stdout
    assert "what is kept" not in done.stdout + done.stderr, "a sign of life is for who waits"


def watch() -> None:
    """A search goes by."""
    observer = TerminalObserver()
    observer.search_started(SearchSize(2, 0, folds=2, epochs=3, best=None, repetitions=0))
    values = {"model/architecture": "small_cnn", "sampling/strategy": "focal", "head/units": 64}
    observer.trial_started(0, values)
    observer.epoch_finished(number=0, fold=0, epoch=1, score=0.5, images_per_s=10.0)
    observer.trial_finished(TrialSummary(0, "failed", None, 12.0, "no luck"))
    observer.search_stopped("the target is reached")
    observer.close()


def test_a_search_that_ended_by_itself_before_its_budget_is_not_half_done():
    observer = TerminalObserver()
    observer.search_started(SearchSize(40, 12, folds=2, epochs=3, best=None, repetitions=0))
    assert observer.done_in_words() == ": 12 of 40 trials done"
    observer.search_stopped("its time is up")
    assert observer.done_in_words().startswith(": 12 of 40 trials done, but not all that follows")


def test_quiet_says_nothing_of_a_search(capsys):
    console.set_volume(Volume.QUIET)
    watch()
    console.say("reading images")
    assert capsys.readouterr() == ("", "")


def test_verbose_tells_every_epoch_with_the_time(capsys):
    console.set_volume(Volume.VERBOSE)
    watch()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("[") and " s] " in line for line in lines)
    assert "trial 0 begins: head/units 64, model/architecture small_cnn" in lines[0]
    assert "fold 1/2 epoch 2/3 score 0.500 · 10 images/s" in lines[1]


def test_by_default_epochs_are_no_lines(capsys):
    watch()
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("words", [["--quiet", "data", "check"], ["data", "check", "-q"]])
def test_quiet_stands_before_a_command_or_after_it(demo, capsys, words):
    assert run_app([*words, "--data", str(demo)]) == 0
    assert "(given)" not in capsys.readouterr().out
    assert run_app(["data", "check", "--data", str(demo)]) == 0  # not for the next command


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_json_is_the_same(demo, capsys, option):
    command = ["data", "check", "--data", str(demo), "--json"]
    assert run_app(command) == 0
    before = capsys.readouterr().out
    assert run_app([*command, option]) == 0
    assert capsys.readouterr().out == before
    json.loads(before)


@pytest.mark.parametrize("words", [["-q", "status", "-v"], ["status", "--quiet", "--verbose"]])
def test_both_together_are_wrong_usage(demo, capsys, words):
    assert run_app(words) == 2
    assert "--quiet and --verbose contradict" in capsys.readouterr().err


def test_verbose_lets_libraries_speak(demo, capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    assert run_app(["status", "--verbose"]) == 0
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"
    assert ("default", None, Warning, None, 0) in warnings.filters
    assert logging.getLogger("breakhis_search").level == logging.INFO


def test_new_lines_of_a_log_are_shown(tmp_path, capsys):
    from breakhis_search.cli.log_tail import LogTail

    old, late = tmp_path / "old-worker-0.log", tmp_path / "late-worker-1.log"
    old.write_text("of an earlier run\n")
    tail = LogTail([old, late])
    with old.open("a") as log:
        log.write("UserWarning: \x1b[1;33mbeware\x1b[0m\n")
    late.write_text("--- worker 1\n")
    tail.close()
    err = capsys.readouterr().err
    assert "old-worker-0: UserWarning: beware" in err
    assert "late-worker-1: --- worker 1" in err
    assert "earlier" not in err
