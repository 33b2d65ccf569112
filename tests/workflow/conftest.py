"""One real search on a tiny demo, run once for all tests that look at what it left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.data.demo import make_demo
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking.store import open_store

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

TINY = [
    "--profile=demo",
    "--set=data.height_px=32",
    "--set=data.width_px=48",
    "--set=protocol.folds=2",
    "--set=training.max_epochs=2",
    "--set=training.batch_size=16",
    "--set=search.startup_trials=8",
    "--set=search.models_kept=1",
    "--set=space.small_cnn/blocks=2",
    "--set=space.small_cnn/filters=16",
    "--set=finalists.count=1",
    "--set=finalists.seeds=1",
    "--set=registration.floors={image/auroc: 0.01}",
    "--set=registration.sealed_floors={}",  # champion at once, where there is none
]


@dataclass
class Home:
    """A user's folder: experiments, mlruns, cache; commands run inside it."""

    folder: Path
    demo: Path

    @property
    def settings(self) -> Settings:
        return read_settings(home=self.folder)

    @property
    def client(self) -> Any:
        return open_store(self.settings)

    def run(self, *arguments: str) -> int:
        """Run a command as the user would, in this folder; return its exit code."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return run_app(list(arguments))
        finally:
            os.chdir(before)

    def search(self, study: str, trials: int, *more: str) -> int:
        """Run a tiny search on the demo."""
        options = ["--data", str(self.demo), "--trials", str(trials), "--workers=0", *TINY, *more]
        return self.run("run", "--study", study, *options)


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=64, width_px=96)


@pytest.fixture(scope="session")
def session_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this session only; no store but the folder's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("BREAKHIS_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        patch.delenv(name, raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def make_home(
    tiny_demo: Path, session_environment: None, with_stores: Callable[[Path], Path]
) -> Callable[[Path], Home]:
    """Turn a folder into a fresh user's folder."""

    def make(folder: Path) -> Home:
        (with_stores(folder) / "experiments").symlink_to(EXPERIMENTS)
        return Home(folder, tiny_demo)

    return make


@pytest.fixture
def home(tmp_path: Path, make_home: Callable[[Path], Home]) -> Home:
    """A fresh user's folder."""
    return make_home(tmp_path)


class _NothingFresh:
    """In place of the check in a fresh process."""

    def __init__(self, _workdir: Path) -> None:
        pass

    def __enter__(self) -> _NothingFresh:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def verify(self, *_: object) -> None:
        pass


@pytest.fixture
def registers_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check in a fresh process, no paper trail: both take seconds, and other files test them."""
    registration = "breakhis_search.workflow.registration"
    monkeypatch.setattr(f"{registration}.FreshProcess", _NothingFresh)
    monkeypatch.setattr(f"{registration}.attach_paper_trail", lambda *_: None)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, make_home: Callable[[Path], Home]) -> Home:
    """A user's folder after one tiny binary search of three trials that registered a model."""
    home = make_home(tmp_path_factory.mktemp("searched"))
    assert home.search("binary", 3) == 0
    return home
