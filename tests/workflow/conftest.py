"""One real search on a tiny demo, run once for all tests that look at what it left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from breakhis_search.data.demo import make_demo
from tests.homes import EXPERIMENTS, Home, copy_home, forget_where_artifacts_lie


@pytest.fixture(scope="session")
def tiny_demo(made_once: Callable[..., Path]) -> Path:
    def fill(place: Path) -> None:
        make_demo(place / "demo", images_per_slide=1, height_px=64, width_px=96)

    return made_once("tiny-demo", fill) / "demo"


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
def searched(
    tmp_path_factory: pytest.TempPathFactory,
    make_home: Callable[[Path], Home],
    made_once: Callable[..., Path],
    tiny_demo: Path,
) -> Home:
    """A user's folder after one tiny binary search of three trials that registered a model."""

    def fill(place: Path) -> None:
        assert make_home(place / "home").search("binary", 3) == 0

    original = Home(made_once("searched", fill) / "home", tiny_demo)
    return copy_home(original, tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def searched_alone(searched: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The same for one file alone, which may go on with the study."""
    yield copy_home(searched, tmp_path_factory.mktemp("alone"))
    forget_where_artifacts_lie()
