"""Interactive figures of one predictions table: curves and confusion matrices.

Every function returns a plotly figure in the one template of :mod:`.style`, drawn from the tables
of :mod:`.curves`, and shows names with :func:`.style.label_of`, which escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.axes import empty_figure, reference_line, unit_square
from breakhis_search.evaluation.curves import (
    MACRO,
    MICRO,
    confusion_counts,
    curve_areas,
    pr_points,
    roc_points,
)
from breakhis_search.evaluation.intervals import Interval
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.samples import DrawnLevel, samples_by_seed
from breakhis_search.evaluation.style import (
    RATE_COLORSCALE,
    class_style,
    label_of,
)

MATRIX_HEIGHT_PX = 520
SMALL_MATRIX_HEIGHT_PX = 360
CELL_FONT_PX = 10
"""The largest size at which a count of four digits fits an eighth of a phone's width."""

LARGE_CELL_FONT_PX = 14

POINT_DECIMALS = 5
"""Digits kept of a drawn point; more would only make the page larger."""


def roc_figure(
    table: pd.DataFrame, level: DrawnLevel, *, intervals: Mapping[str, Interval] | None = None
) -> go.Figure | None:
    """Return the ROC figure of a level, or ``None`` if no class has a curve.

    Args:
        table: A predictions table of any number of seeds.
        level: What is ranked.
        intervals: By metric name; the legend tells those of the classes that are drawn.
    """
    points = roc_points(table, level)
    if points.empty:
        return None
    names, areas = _drawn_classes(table, points), curve_areas(table, level, "roc")
    figure = unit_square(
        f"ROC, {count_in_words(table, level)}{seeds_in_words(table)}",
        axes=("false-positive rate", "true-positive rate"),
        legend="area under the line (AUROC)",
        lines=len(names) + 1,
    )
    figure.add_scatter(x=[0, 1], y=[0, 1], **reference_line("chance, 0.500"))
    for name in names:
        interval = (intervals or {}).get(f"{level}/auroc_{name}")
        _add_line(figure, points, name, ("fpr", "tpr"), areas[name], interval)
    return figure


def pr_figure(table: pd.DataFrame, level: DrawnLevel) -> go.Figure | None:
    """Return the precision-recall figure of a level, or ``None`` if no class has a curve."""
    points = pr_points(table, level)
    if points.empty:
        return None
    names, areas = _drawn_classes(table, points, both=True), curve_areas(table, level, "pr")
    figure = unit_square(
        f"Precision-recall, {count_in_words(table, level)}{seeds_in_words(table)}",
        axes=("recall", "precision"),
        legend="average precision",
        lines=len(names),
    )
    for name in names:
        _add_line(figure, points, name, ("recall", "precision"), areas[name])
    return figure


def confusion_figure(
    table: pd.DataFrame, level: DrawnLevel, shown: Literal["count", "rate"]
) -> go.Figure:
    """Return a confusion matrix with counts or row percents written in it.

    Both are coloured by the row rate, so that a rare class can be read as well as a common one.
    """
    cells = confusion_counts(table, level)
    names = class_names_of(table)
    shape = (len(names), len(names))
    rates, counts = (cells[column].to_numpy().reshape(shape) for column in ("rate", "count"))
    figure = empty_figure(
        f"{level.capitalize()}s, {'counts' if shown == 'count' else 'percent'} (row = true class)"
        f"{seeds_in_words(table)}",
        MATRIX_HEIGHT_PX if len(names) > 2 else SMALL_MATRIX_HEIGHT_PX,
        xaxis={
            "title": "predicted",
            "showgrid": False,
            "ticks": "",
            "tickangle": -45 if len(names) > 2 else 0,
        },
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    labels = [label_of(name) for name in names]
    totals = [_with_count(n, k) for n, k in zip(names, counts.sum(axis=1), strict=True)]
    figure.add_heatmap(
        z=rates,
        x=labels,
        y=totals,
        text=_cell_texts(counts, rates, shown),
        texttemplate="%{text}",
        textfont_size=CELL_FONT_PX if len(names) > 2 else LARGE_CELL_FONT_PX,
        customdata=np.dstack([np.round(counts, 1), np.nan_to_num(rates)]),
        hovertemplate="true %{y}<br>predicted %{x}<br>%{customdata[0]} "
        "(%{customdata[1]:.1%} of the row)<extra></extra>",
        colorscale=RATE_COLORSCALE,
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        showscale=False,
        hoverongaps=False,
    )
    return figure


def count_in_words(table: pd.DataFrame, level: DrawnLevel) -> str:
    """Return how many images or patients are scored, such as ``7,909 images`` or ``1 patient``."""
    count = len(samples_by_seed(table, level)[0].y_true)
    return f"{count:,} {level}" + ("" if count == 1 else "s")


def seeds_in_words(table: pd.DataFrame) -> str:
    """Return ``, mean of 3 seeds`` where there are several, else nothing."""
    seeds = table["seed"].nunique()
    return f", mean of {seeds} seeds" if seeds > 1 else ""


def _drawn_classes(table: pd.DataFrame, points: pd.DataFrame, *, both: bool = False) -> list[str]:
    """Return the lines worth drawing: all of them, or the positive class of the binary task.

    Of two classes, each ROC curve is the other's mirror image and the micro and macro lines add
    nothing; precision differs between the two, so ``both`` may be asked for.
    """
    drawn = list(points["class"].unique())
    if not is_binary(class_names_of(table)):
        return drawn
    wanted = class_names_of(table) if both else class_names_of(table)[1:]
    return [name for name in drawn if name in wanted]


def _add_line(
    figure: go.Figure,
    points: pd.DataFrame,
    name: str,
    axes: tuple[str, str],
    area: float,
    interval: Interval | None = None,
) -> None:
    line = points[points["class"] == name]
    style, x, y = class_style(name), axes[0], axes[1]
    averages = {MACRO: "macro average", MICRO: "micro average"}
    label = averages.get(name, label_of(name))
    averaged = line["threshold"].isna().all()
    threshold = "" if averaged else "<br>threshold %{customdata:.3f}"
    figure.add_scatter(
        x=line[x].round(POINT_DECIMALS).to_list(),
        y=line[y].round(POINT_DECIMALS).to_list(),
        customdata=line["threshold"].clip(upper=1.0).round(POINT_DECIMALS).to_list(),
        name=f"{label}, {area:.3f}" + (f" {interval}" if interval else ""),
        mode="lines",
        line={"color": style.color, "dash": style.dash, "width": style.width_px},
        hovertemplate=f"{label}<br>{x} %{{x:.3f}}, {y} %{{y:.3f}}{threshold}<extra></extra>",
    )


def _cell_texts(
    counts: npt.NDArray[np.float64], rates: npt.NDArray[np.float64], shown: Literal["count", "rate"]
) -> list[list[str]]:
    """Return counts or whole percents for the cells; nothing in the row of an absent class."""
    # A mean over seeds need not be whole; one decimal for all cells or for none.
    decimals = 0 if np.equal(counts, counts.round()).all() or counts.max() >= 1000 else 1

    def text_of(count: float, rate: float) -> str:
        if np.isnan(rate):
            return ""
        if shown == "count" or count == 0:
            return f"{count:.{decimals}f}" if shown == "count" else "0"
        return f"{100 * rate:.0f}" if rate >= 0.005 else "<1"

    return [
        [text_of(count, rate) for count, rate in zip(*row, strict=True)]
        for row in zip(counts, rates, strict=True)
    ]


def _with_count(name: str, count: float) -> str:
    """Return a class name and how many there are, over two lines to keep axis labels narrow."""
    first, _, rest = label_of(name).partition(" ")
    return f"{first}<br>{rest} · {count:,.0f}" if rest else f"{first}<br>{count:,.0f}"
