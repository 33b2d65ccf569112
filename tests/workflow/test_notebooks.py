"""The notebooks of the documentation: they run, and what is committed holds no patient's image."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.homes import TINY
from tests.patience import PATIENCE_S

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = ("binary", "multiclass")
LARGEST_BYTES = 1_500_000

# The kernel of a notebook is another process, found by its name.
pytestmark = pytest.mark.filterwarnings("ignore:.*(zmq|event loop|jupyter):")


def outputs_of(notebook) -> list[dict]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def both(searched_alone):
    """The folder of a tiny binary search, with a tiny multiclass one beside it."""
    assert searched_alone.search("multiclass", 2) == 0
    return searched_alone


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs_and_shows_what_it_is_about(name, both, monkeypatch):
    trials = {"binary": 3, "multiclass": 2}[name]
    monkeypatch.setenv("NOTEBOOK_HOME", str(both.folder))
    monkeypatch.chdir(both.demo.parent)
    monkeypatch.setenv("BREAKHIS_ROOT", both.demo.name)  # as typed, from the notebook's folder
    monkeypatch.setenv("NOTEBOOK_SETTINGS", shlex.join(TINY))
    monkeypatch.setenv("NOTEBOOK_OPTIONS", f"--trials {trials} --workers 0")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=PATIENCE_S, resources={}).execute()
    shown = outputs_of(notebook)
    figures = [o for o in shown if "application/vnd.plotly.v1+json" in o.get("data", {})]
    tables = [o for o in shown if "<table" in "".join(o.get("data", {}).get("text/html", ""))]
    assert len(figures) >= 2
    assert len(tables) >= 5
    text = json.dumps(shown)
    assert f"{name}-demo@v1" in text
    assert "fold 1 validates" in text
    assert "fold 2 validates" not in text, "the split that is shown is the one that was searched"
    assert "$BREAKHIS_ROOT" in text
    for place in (both.folder, both.demo, os.environ["BREAKHIS_CACHE"]):
        assert str(place) not in text, "no folder of this machine"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_committed_was_run_and_holds_neither_images_nor_places_of_a_machine(name):
    file = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "every cell was executed"
    assert len(outputs_of(notebook)) >= len(code) - 3
    assert file.stat().st_size < LARGEST_BYTES
    for output in outputs_of(notebook):
        data = output.get("data", {})
        figure = "application/vnd.plotly.v1+json" in data
        pictures = {kind for kind in data if kind.startswith("image/")}
        assert pictures == ({"image/png"} if figure else set()), "a figure that viewers can show"
    text = json.dumps(outputs_of(notebook))
    assert "data:image" not in text
    assert not re.findall(r"/(?:work|tmp|root|home)/\w+", text)
