"""The wheel, built here and installed into an empty folder, away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from breakhis_search import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("pyproject.toml", "README.md", "breakhis_search", "experiments")

RESOLVE = """
import breakhis_search
from pathlib import Path
from breakhis_search.settings import read_settings
from breakhis_search.study_file import find_study_file, load_study
from breakhis_search.workflow.space_check import check_space
print(breakhis_search.__version__)
print(Path(breakhis_search.__file__).parent)
file = find_study_file("multiclass", read_settings().home / "experiments")
print(file)
print(load_study(file, profile="demo", check_space=check_space).name)
"""


def pip(*arguments: str) -> None:
    """Run pip without asking the network for anything."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INDEX": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("setuptools", reason="builds without a network need setuptools here")
    pytest.importorskip("pip", reason="an environment of uv has no pip")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for part in PARTS:  # a copy: building leaves its own files behind
        if (REPOSITORY / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / part, source / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / part, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    [file] = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture
def python(installed, tmp_path):
    """Run Python with the installed package first on its path, in an empty folder."""
    variables = {"PYTHONPATH": str(installed), "BREAKHIS_CACHE": str(tmp_path / "cache")}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wheel_holds_types_studies_and_nothing_foreign(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        study = archive.read("breakhis_search/experiments/binary.yaml")
    assert "breakhis_search/py.typed" in names
    assert study == (REPOSITORY / "experiments" / "binary.yaml").read_bytes()
    assert "breakhis_search/experiments/reference/r1.yaml" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"breakhis_search", f"breakhis_search-{__version__}.dist-info"}


def test_every_module_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = REPOSITORY / "breakhis_search"
    assert {str(f.relative_to(REPOSITORY)) for f in package.rglob("*.py")} <= names


def test_the_wheel_names_its_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [n for n in archive.namelist() if n.endswith("METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if "Provides-Extra" in line}
    assert {"gpu", "ray", "dashboard", "postgres"} <= extras


def test_the_installed_program_has_its_help(python):
    done = python("-m", "breakhis_search", "--help")
    assert done.returncode == 0
    assert "promote" in done.stdout


def test_away_from_the_repository_shipped_studies_are_found(python, installed, tmp_path):
    done = python("-c", RESOLVE)
    assert done.returncode == 0, done.stderr
    version, place, file, kind = done.stdout.splitlines()
    assert version == __version__
    assert Path(place) == installed / "breakhis_search"
    assert (installed / "breakhis_search" / "py.typed").is_file()
    assert Path(file) == installed / "breakhis_search" / "experiments" / "multiclass.yaml"
    assert kind == "multiclass"


def test_away_from_the_repository_a_wrong_study_is_one_line(python):
    done = python("-m", "breakhis_search", "run", "--study", "nosuch")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: there is no study 'nosuch'; expected one of binary, multiclass")


def test_a_study_of_the_folder_comes_before_a_shipped_one(python, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "multiclass.yaml").write_text("name: mine\n")
    done = python("-c", RESOLVE)
    assert str(tmp_path / "experiments" / "multiclass.yaml") in done.stdout
