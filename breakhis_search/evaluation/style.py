"""How every figure looks, decided once: template, colours, line styles, names."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import NamedTuple

import plotly.graph_objects as go

from breakhis_search.evaluation.curves import MACRO, MICRO
from breakhis_search.evaluation.samples import DrawnLevel

OKABE_ITO: dict[str, str] = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "bluish green": "#009E73",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "reddish purple": "#CC79A7",
    "grey": "#999999",
}
"""Colours that colour-blind readers tell apart (M. Okabe, K. Ito, "Color Universal Design", 2008).

Their yellow cannot be read on white; the grey they suggest beside the palette takes its place.
"""

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
TEXT_COLOR = "#222222"
GRID_COLOR = "#E5E5E5"
REFERENCE_COLOR = "#767676"
"""For chance lines and other references; the lightest grey with contrast 4.5 on white (WCAG AA)."""

RATE_COLORSCALE: tuple[tuple[float, str], ...] = (
    (0.0, "#FFFFFF"),
    (0.5, "#7DB4DA"),
    (1.0, "#00507F"),
)
"""From white to dark blue, so that lightness alone tells the rate."""

LEVEL_COLORS: dict[DrawnLevel, str] = {
    "image": OKABE_ITO["sky blue"],
    "patient": OKABE_ITO["blue"],
}


class LineStyle(NamedTuple):
    """How one line is drawn.

    Attributes:
        color: A CSS colour.
        dash: A plotly dash style, so that lines can be told apart without colour too: of the two
            classes the positive one is solid, of the types those that are benign.
        width_px: Width in pixels.
    """

    color: str
    dash: str
    width_px: float


_CLASS_STYLES: dict[str, LineStyle] = {
    "benign": LineStyle(OKABE_ITO["blue"], "dash", 2),
    "malignant": LineStyle(OKABE_ITO["vermillion"], "solid", 2),
    "adenosis": LineStyle(OKABE_ITO["sky blue"], "solid", 2),
    "fibroadenoma": LineStyle(OKABE_ITO["bluish green"], "solid", 2),
    "phyllodes_tumor": LineStyle(OKABE_ITO["blue"], "solid", 2),
    "tubular_adenoma": LineStyle(OKABE_ITO["grey"], "solid", 2),
    "ductal_carcinoma": LineStyle(OKABE_ITO["vermillion"], "dash", 2),
    "lobular_carcinoma": LineStyle(OKABE_ITO["orange"], "dash", 2),
    "mucinous_carcinoma": LineStyle(OKABE_ITO["reddish purple"], "dash", 2),
    "papillary_carcinoma": LineStyle(OKABE_ITO["black"], "dash", 1.5),
    MACRO: LineStyle(OKABE_ITO["black"], "solid", 4),
    MICRO: LineStyle(OKABE_ITO["black"], "dot", 2.5),
}

_SERIES_COLORS: tuple[str, ...] = (
    OKABE_ITO["blue"],
    OKABE_ITO["vermillion"],
    OKABE_ITO["bluish green"],
    OKABE_ITO["orange"],
    OKABE_ITO["reddish purple"],
    OKABE_ITO["sky blue"],
    OKABE_ITO["black"],
    OKABE_ITO["grey"],
)


DASHES: tuple[str, ...] = ("solid", "dash", "dot", "dashdot")
"""So that equal series can be told apart without colour, too."""


def class_style(name: str) -> LineStyle:
    """Return how the line of a class, of ``macro`` or of ``micro`` is drawn."""
    return _CLASS_STYLES.get(name, LineStyle(REFERENCE_COLOR, "solid", 2))


def series_color(index: int) -> str:
    """Return the colour of the n-th of several equal series, such as folds; repeats after eight.

    >>> series_color(0) == series_color(8)
    True
    """
    return _SERIES_COLORS[index % len(_SERIES_COLORS)]


def label_of(name: str) -> str:
    """Return a class name as it is shown, safe inside a figure.

    >>> label_of("ductal_carcinoma"), label_of("<b>")
    ('ductal carcinoma', '&lt;b&gt;')
    """
    return escape(name.replace("_", " "))


@cache
def build_template() -> go.layout.Template:
    """Return the one plotly template; give it to every figure, and set no global default."""
    axis = {
        "gridcolor": GRID_COLOR,
        "linecolor": REFERENCE_COLOR,
        "showline": True,
        "ticks": "outside",
        "tickcolor": REFERENCE_COLOR,
        "title": {"standoff": 8},
        "zeroline": False,
    }
    layout = go.Layout(
        font={"family": FONT_FAMILY, "size": 13, "color": TEXT_COLOR},
        title={"x": 0.01, "xref": "container", "xanchor": "left", "font": {"size": 15}},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 56, "r": 16, "t": 44, "b": 48},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        hoverlabel={"font": {"family": FONT_FAMILY}},
        # Each axis grows one margin only: when both grow both, a wrapping legend never settles.
        xaxis={**axis, "automargin": "height"},
        yaxis={**axis, "automargin": "width"},
    )
    return go.layout.Template(layout=layout)
