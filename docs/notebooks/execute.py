"""Run the notebooks of this folder and keep what they show, figures as pictures too.

    BREAKHIS_ROOT=DIR NOTEBOOK_HOME=FOLDER python docs/notebooks/execute.py [binary multiclass]

Viewers such as GitHub's draw no plotly figure: beside each a picture of it is kept, drawn by
Chromium (``pip install '.[dev]'``). The variables are those of the notebooks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from plotly.offline import get_plotlyjs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.browser import chromium

PLOTLY = "application/vnd.plotly.v1+json"
WIDTH_PX, HEIGHT_PX = 900, 420
_DRAW = """async ([figure, width, height]) => {
  const url = await Plotly.toImage(figure, {format: 'png', width, height, scale: 1.25});
  return url.split(',')[1];
}"""


def main() -> None:
    """Execute, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", default=["binary", "multiclass"])
    for name in parser.parse_args().notebooks:
        file = HERE / f"{name}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        client = nbclient.NotebookClient(notebook, timeout=None, resources={})
        client.execute(cwd=str(HERE))
        add_pictures(notebook)
        for cell in notebook.cells:  # when it ran is nobody's business, and changes every time
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, file)
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")


def add_pictures(notebook: Any) -> None:
    """Put a picture beside every plotly figure among the outputs."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=get_plotlyjs())
        for output in shown:
            figure = output.get("data", {}).get(PLOTLY)
            if figure:
                height = figure.get("layout", {}).get("height", HEIGHT_PX)
                drawn = {"data": figure["data"], "layout": figure["layout"]}
                output.data["image/png"] = page.evaluate(_DRAW, [drawn, WIDTH_PX, height])


if __name__ == "__main__":
    main()
