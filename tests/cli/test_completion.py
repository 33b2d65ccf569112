"""What the shell is told when the tab key is pressed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The program as it is installed, in the way that typer's script for bash asks it.
ASK = """
import sys
from breakhis_search.cli.app import run_app
try:
    code = run_app(sys.argv[1:])
finally:
    heavy = {"tensorflow", "keras", "mlflow", "optuna", "pandas", "jax"} & set(sys.modules)
    print(sorted(heavy), file=sys.stderr)
sys.exit(code)
"""


def ask(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", ASK, *arguments],
        cwd=folder,
        env=env | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def complete(folder: Path, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    done = ask(
        folder,
        _BREAKHIS_SEARCH_COMPLETE="complete_bash",
        COMP_WORDS="\n".join(words),
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"  # nothing heavy was imported
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "experiments").mkdir()
    for name in ("binary", "broken", "mine"):
        shutil.copy(REPOSITORY / "experiments" / "binary.yaml", tmp_path / "experiments")
        text = (tmp_path / "experiments" / "binary.yaml").read_text()
        (tmp_path / "experiments" / f"{name}.yaml").write_text(text)
    (tmp_path / "experiments" / "mine.yaml").write_text(
        "name: mine\nprofiles: {tiny: {}, huge: {}}"
    )
    (tmp_path / "experiments" / "broken.yaml").write_text("name: [")
    return tmp_path


@pytest.mark.parametrize("command", ["run", "compare", "predict", "report", "data splits"])
def test_studies_are_completed(folder, command):
    assert complete(folder, f"breakhis-search {command} --study b") == ["binary", "broken"]


def test_shipped_studies_are_completed_anywhere(tmp_path):
    assert complete(tmp_path, "breakhis-search run --study ") == ["binary", "multiclass"]


def test_profiles_are_those_of_the_study(folder):
    assert complete(folder, "breakhis-search run --study mine --profile ") == ["tiny", "huge"]
    assert complete(folder, "breakhis-search run --study binary --profile q") == ["quick"]


def test_a_broken_study_completes_nothing_and_breaks_nothing(folder):
    assert complete(folder, "breakhis-search run --study broken --profile ") == []


def test_commands_are_completed(folder):
    assert complete(folder, "breakhis-search pro") == ["promote"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_the_installed_program(tmp_path, shell):
    done = ask(
        tmp_path, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert done.returncode == 0, done.stderr
    assert "_BREAKHIS_SEARCH_COMPLETE=complete_" in done.stdout
    assert "breakhis-search" in done.stdout
    assert "python -m" not in done.stdout
