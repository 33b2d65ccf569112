"""Figures of one predictions table, magnification by magnification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.axes import empty_figure, reference_line, unit_square
from breakhis_search.evaluation.curves import MACRO, CurveKind, curve_areas, pr_points, roc_points
from breakhis_search.evaluation.figures import POINT_DECIMALS, confusion_figure, seeds_in_words
from breakhis_search.evaluation.intervals import Interval
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel
from breakhis_search.evaluation.style import (
    DASHES,
    LEVEL_COLORS,
    REFERENCE_COLOR,
    TEXT_COLOR,
    series_color,
)
from breakhis_search.wording import counted

BAR_HEIGHT_PX = 380


class _Drawing(NamedTuple):
    """How a kind of curve is drawn.

    Attributes:
        points_of: Its points, of a table at a level.
        columns: Of the points: what goes to the right, and what up.
        axes: How these are called.
        title: How the curve is called.
        legend: What its area is called.
    """

    points_of: Callable[[pd.DataFrame, DrawnLevel], pd.DataFrame]
    columns: tuple[str, str]
    axes: tuple[str, str]
    title: str
    legend: str


_DRAWINGS: dict[CurveKind, _Drawing] = {
    "roc": _Drawing(
        roc_points,
        ("fpr", "tpr"),
        ("false-positive rate", "true-positive rate"),
        "ROC",
        "area under the line (AUROC)",
    ),
    "pr": _Drawing(
        pr_points,
        ("recall", "precision"),
        ("recall", "precision"),
        "Precision-recall",
        "average precision",
    ),
}


def magnification_curves(
    table: pd.DataFrame, level: DrawnLevel, kind: CurveKind
) -> go.Figure | None:
    """Return a curve for each magnification, or ``None`` where fewer than two have one.

    A line is that of *malignant*, or of eight types the macro average.

    Args:
        table: A predictions table of any number of seeds.
        level: What is ranked; of a patient, the images of the magnification.
        kind: ROC or precision-recall.
    """
    names, drawing = class_names_of(table), _DRAWINGS[kind]
    line = names[1] if is_binary(names) else MACRO
    lines = {}
    for magnification, part in table.groupby("magnification"):
        points = drawing.points_of(part, level)
        if len(points):
            area = curve_areas(part, level, kind)[line]
            count = part["image" if level == "image" else "accession"].nunique()
            name = f"{magnification}× ({counted(count, level)})"
            lines[name] = (points[points["class"] == line], area)
    if len(lines) < 2:
        return None
    whose = "" if is_binary(names) else "macro average, "
    figure = unit_square(
        f"{drawing.title} by magnification, {whose}{level}s{seeds_in_words(table)}",
        axes=drawing.axes,
        legend=drawing.legend,
        lines=len(lines) + 1,
    )
    if kind == "roc":
        figure.add_scatter(x=[0, 1], y=[0, 1], **reference_line("chance, 0.500"))
    x, y = drawing.columns
    for index, (name, (points, area)) in enumerate(lines.items()):
        figure.add_scatter(
            x=points[x].round(POINT_DECIMALS).to_list(),
            y=points[y].round(POINT_DECIMALS).to_list(),
            name=f"{name}, {area:.3f}",
            mode="lines",
            line={"color": series_color(index), "dash": DASHES[index % len(DASHES)], "width": 2},
            hovertemplate=f"{name}<br>{x} %{{x:.3f}}, {y} %{{y:.3f}}<extra></extra>",
        )
    return figure


def magnification_confusions(table: pd.DataFrame) -> list[go.Figure]:
    """Return the confusion of the images of each magnification; none where there is one."""
    parts = [(str(magnification), part) for magnification, part in table.groupby("magnification")]
    figures = []
    for magnification, part in parts if len(parts) > 1 else []:
        figure = confusion_figure(part, "image", "count")
        figure.update_layout(title_text=f"{magnification}×: {figure.layout.title.text}")
        figures.append(figure)
    return figures


def magnification_figure(
    metrics: Mapping[str, float],
    metric: str,
    *,
    label: str,
    chance: float,
    intervals: Mapping[str, Interval] | None = None,
) -> go.Figure | None:
    """Return bars of a metric per magnification and for all, or ``None`` if none is defined.

    Args:
        metrics: What :func:`.metrics.compute_metrics` returned.
        metric: A headline metric in [0, 1], such as ``auroc``.
        label: What the axis calls it.
        chance: The value that guessing gets.
        intervals: By metric name, drawn as whiskers.
    """
    prefixes = {f"{m}×": f"magnification_{m}/" for m in _magnifications_in(metrics)} | {"all": ""}
    names = {level: [f"{p}{level}/{metric}" for p in prefixes.values()] for level in DRAWN_LEVELS}
    if not any(name in metrics for level in DRAWN_LEVELS for name in names[level]):
        return None
    figure = empty_figure(
        f"{label[0].upper()}{label[1:]} by magnification",
        BAR_HEIGHT_PX,
        barmode="group",
        bargap=0.3,
        xaxis={"type": "category"},
        yaxis={"title": label, "range": [0, 1.08], "tickvals": np.linspace(0, 1, 6)},
    )
    for level in DRAWN_LEVELS:
        values = [metrics.get(name) for name in names[level]]
        whiskers = [(intervals or {}).get(name) for name in names[level]]
        figure.add_bar(
            name=f"{level} level",
            x=list(prefixes),
            y=values,
            error_y=_whiskers(values, whiskers),
            marker_color=LEVEL_COLORS[level],
            text=["" if value is None else f"{value:.2f}" for value in values],
            textposition="inside",
            insidetextanchor="start",  # at the foot, where no whisker reaches
            textangle=0,
            customdata=[f"<br>interval {whisker}" if whisker else "" for whisker in whiskers],
            hovertemplate=f"%{{x}}, {level} level<br>{label} %{{y:.3f}}%{{customdata}}"
            "<extra></extra>",
        )
    _add_chance(figure, chance)
    return figure


_NO_WHISKER = "none"
"""plotly.js reads null as 0 and draws the cap of a whisker without length, which looks like
certainty; only what is no number at all is left out."""


def _whiskers(
    values: Sequence[float | None], intervals: Sequence[Interval | None]
) -> dict[str, object]:
    """Return plotly's error bars; none where there is no interval."""
    pairs = [
        (interval.high - value, value - interval.low)
        if interval and value is not None
        else (_NO_WHISKER, _NO_WHISKER)
        for value, interval in zip(values, intervals, strict=True)
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [up for up, _ in pairs],
        "arrayminus": [down for _, down in pairs],
        "color": TEXT_COLOR,
        "thickness": 1.2,
        "width": 3,
        "visible": any(up != _NO_WHISKER for up, _ in pairs),
    }


def _add_chance(figure: go.Figure, chance: float) -> None:
    figure.add_hline(y=chance, line={"color": REFERENCE_COLOR, "dash": "dot", "width": 1.5})
    # A shape has no legend entry of its own: an empty line explains it.
    figure.add_scatter(x=[None], y=[None], **reference_line(f"chance, {chance:.3g}"))


def _magnifications_in(metrics: Iterable[str]) -> list[str]:
    """Return the magnifications that have metrics, ascending, as written in their names."""
    heads = {name.partition("/")[0] for name in metrics}
    found = {head.removeprefix("magnification_") for head in heads if head.startswith("magnif")}
    return sorted(found, key=int)
