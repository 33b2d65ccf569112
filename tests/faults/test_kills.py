"""kill -9 in the middle of real searches, under real supervision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from breakhis_search.data.demo import make_demo
from breakhis_search.settings import Settings, read_settings
from tests.faults.soundness import assert_sound, study_of
from tests.patience import PATIENCE_S, wait_until

EPOCHS, FOLDS = 6, 2
SEARCH = [
    "run",
    "--study=binary",
    "--profile=demo",
    "--set=data.height_px=32",
    "--set=data.width_px=48",
    f"--set=protocol.folds={FOLDS}",
    f"--set=training.max_epochs={EPOCHS}",
    f"--set=training.patience={EPOCHS}",
    "--set=training.batch_size=16",
    "--set=search.pruner=none",
    "--set=space.small_cnn/blocks=2",
    "--set=space.small_cnn/filters=16",
    "--set=finalists.count=1",
    "--set=finalists.seeds=1",
    "--set=registration.floors={image/auroc: 0.01}",
]


class Search:
    """A real search in processes of its own, in a user's folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        (folder / "experiments").symlink_to(Path(__file__).resolve().parents[2] / "experiments")
        self.settings: Settings = read_settings({}, home=folder)
        self._command = [sys.executable, "-m", "breakhis_search", *SEARCH, "--data", str(data)]
        self._environment = {
            **os.environ,
            "BREAKHIS_CACHE": str(folder / "cache"),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
            self._environment.pop(name, None)

    def start(self, trials: int, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, f"--trials={trials}", *more],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def epochs(self) -> int:
        """How many epochs of trials are in the journals by now."""
        lines = [
            line
            for file in self.settings.journal_dir.glob("*/records.jsonl")
            for line in file.read_text().splitlines()
        ]
        return sum('"epoch/fold_' in line for line in lines)

    def wait_for(self, is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        def is_so_while_it_runs() -> bool:
            assert process.poll() is None, process.communicate()[0][-3000:]
            return is_so()

        wait_until(is_so_while_it_runs)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes of a supervisor: its children that write to a log of their own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            prints_to = (folder / "fd" / "1").readlink().name
        except OSError:
            continue
        if parent == process.pid and "-worker-" in prints_to:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=64, width_px=96)


@pytest.fixture
def search(tmp_path, data) -> Search:
    return Search(tmp_path, data)


def finish(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told[-3000:]
    return told


def test_a_killed_supervisor_leaves_everything_to_the_next_run(search):
    process = search.start(2)
    search.wait_for(lambda: search.epochs() >= 8, process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    for worker in workers:
        wait_until(lambda worker=worker: not Path(f"/proc/{worker}").exists(), "they notice")
    before = search.epochs()
    assert before >= 8
    told = finish(search.start(2))
    assert "continuing binary-demo@v1" in told
    assert_sound(search.settings, 2, folds=FOLDS, epochs=EPOCHS)


def test_two_workers_share_the_budget_and_one_that_is_killed_is_replaced(search):
    process = search.start(4, "--workers=2")
    search.wait_for(lambda: len(workers_of(process)) == 2 and search.epochs() >= 6, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    told = finish(process)
    assert "died (killed by SIGKILL" in told
    assert "Registered: breakhis-binary-demo version 1" in told
    assert_sound(search.settings, 4, folds=FOLDS, epochs=EPOCHS)
    lost = [
        t.user_attrs.get("processes_lost", {"lost": 0})["lost"]
        for t in study_of(search.settings).trials
    ]
    assert sum(lost) == 1, "the trial that lost its process went on"
