"""Empty figures of a kind, which others draw into: so that all squares are one square."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from breakhis_search.evaluation.style import REFERENCE_COLOR, build_template

SQUARE_HEIGHT_PX = 580
LEGEND_ROW_PX = 19


def empty_figure(title: str, height_px: int, **layout: object) -> go.Figure:
    """Return an empty figure; what is known of its layout is cheaper given here than updated."""
    own = {"template": build_template(), "title": title, "height": height_px}
    return go.Figure(layout={**own, **layout})


def unit_square(title: str, *, axes: tuple[str, str], legend: str, lines: int) -> go.Figure:
    """Return an empty figure over the unit square, with room for a legend of so many lines.

    Args:
        title: Its title.
        axes: What is to the right, and what is up.
        legend: What the numbers in the legend are.
        lines: Entries that the legend will have.
    """
    ticks = {"tickvals": np.linspace(0, 1, 6), "range": [-0.01, 1.01], "constrain": "domain"}
    return empty_figure(
        title,
        SQUARE_HEIGHT_PX + LEGEND_ROW_PX * ((lines + 1) // 2),
        xaxis={"title": axes[0], **ticks},
        yaxis={"title": axes[1], "scaleanchor": "x", "constraintoward": "top", **ticks},
        legend={"title": {"text": legend, "side": "top"}},
    )


def reference_line(name: str) -> dict[str, object]:
    """Return how a line to compare with is drawn, such as that of guessing."""
    return {
        "name": name,
        "mode": "lines",
        "line": {"color": REFERENCE_COLOR, "dash": "dot", "width": 1.5},
        "hoverinfo": "skip",
    }
