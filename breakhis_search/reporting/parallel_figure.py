"""Parallel coordinates of a search, as plain lines: plotly's own kind needs WebGL to be seen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial
from plotly.colors import n_colors

from breakhis_search.evaluation.style import (
    REFERENCE_COLOR,
    build_template,
    label_of,
)
from breakhis_search.reporting.search_figures import common_parameters, complete_trials, is_log

HEIGHT_PX = 460
_SHADES = 8
"""Scores are shown in so many steps; trials of one step are one line with gaps, which keeps a page
of a thousand trials quick."""

_WORST, _BEST = "rgb(205, 209, 214)", "rgb(0, 114, 178)"
"""From a light grey to the blue of :data:`.style.OKABE_ITO`: lightness alone tells the score."""

_MOST_CHOICES = 12
_LONGEST_LINE = 14
_HALO = "0 0 2px #fff, 0 0 2px #fff, 0 0 3px #fff"
"""Of the texts, which lines run through; a CSS shadow."""


@dataclass(frozen=True)
class _Axis:
    """One upright axis.

    Attributes:
        name: Of what it shows.
        places: Where each trial crosses it, from 0 at the foot to 1.
        ticks: Places and texts of its marks.
        texts: What each trial has there.
    """

    name: str
    places: list[float]
    ticks: list[tuple[float, str]]
    texts: list[str]


def parallel_figure(trials: Sequence[FrozenTrial], title: str) -> go.Figure | None:
    """Return one line per complete trial through its hyperparameters, the darker the better.

    Args:
        trials: All trials of a study.
        title: Of the objective; its axis is the last.

    Returns:
        The figure; ``None`` where fewer than two trials are complete or nothing varied.
    """
    complete = complete_trials(trials)
    names = [n for n in common_parameters(complete) if len({t.params[n] for t in complete}) > 1]
    if len(complete) < 2 or not names:
        return None
    scores = [float(t.value or 0.0) for t in complete]
    axes = [*(_axis(name, complete) for name in names), _numbers(label_of(title), scores)]
    figure = go.Figure(
        layout={
            "template": build_template(),
            "title": "Every trial, a line",
            "height": HEIGHT_PX,
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": {
                "tickvals": list(range(len(axes))),
                "ticktext": [_narrow(axis.name) for axis in axes],
                "tickangle": 0,
                "tickfont": {"size": 11},
                "range": [-0.3, len(axes) - 0.45],
                "showgrid": False,
                "showline": False,
                "ticks": "",
                "side": "top",
            },
            "yaxis": {"visible": False, "range": [-0.06, 1.06]},
            "margin": {"l": 36, "r": 8, "t": 110, "b": 16},
        }
    )
    _add_lines(figure, axes, complete, scores)
    for number, axis in enumerate(axes):
        _add_axis(figure, axis, number)
    return figure


def _add_lines(
    figure: go.Figure, axes: Sequence[_Axis], trials: Sequence[FrozenTrial], scores: list[float]
) -> None:
    """Draw the trials from the worst to the best, so that the best lie on top."""
    lowest, highest = min(scores), max(scores)
    spread = (highest - lowest) or 1.0
    shades = [min(_SHADES - 1, int(_SHADES * (s - lowest) / spread)) for s in scores]
    colors = n_colors(_WORST, _BEST, _SHADES, colortype="rgb")
    for shade in sorted(set(shades)):
        x: list[float | None] = []
        y: list[float | None] = []
        told: list[str] = []
        for index in (i for i, own in enumerate(shades) if own == shade):
            x += [*range(len(axes)), None]
            y += [*(axis.places[index] for axis in axes), None]
            told += [
                *(
                    f"trial {trials[index].number}, {scores[index]:.4f}<br>"
                    f"{axis.name}: {axis.texts[index]}"
                    for axis in axes
                ),
                "",
            ]
        best = shade == _SHADES - 1
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            line={"color": colors[shade], "width": 2.2 if best else 1.2},
            marker={"size": 4, "color": colors[shade]},
            opacity=1.0 if best else 0.75,
            text=told,
            hovertemplate="%{text}<extra></extra>",
        )


def _add_axis(figure: go.Figure, axis: _Axis, number: int) -> None:
    figure.add_scatter(
        x=[number, number],
        y=[0, 1],
        mode="lines",
        line={"color": REFERENCE_COLOR, "width": 1},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[number] * len(axis.ticks),
        y=[place for place, _ in axis.ticks],
        mode="text",
        text=[f" {text}" for _, text in axis.ticks],
        textposition="middle right",
        textfont={"size": 11, "shadow": _HALO},
        hoverinfo="skip",
    )


def _axis(name: str, trials: Sequence[FrozenTrial]) -> _Axis:
    kind, label = trials[0].distributions[name], label_of(name)
    values = [t.params[name] for t in trials]
    if isinstance(kind, CategoricalDistribution):
        tried = [choice for choice in kind.choices if choice in values]
        steps = max(1, len(tried) - 1)
        ticks = [(index / steps, label_of(str(choice))) for index, choice in enumerate(tried)]
        places = [tried.index(value) / steps for value in values]
        return _Axis(label, places, _thinned(ticks), [label_of(str(value)) for value in values])
    numbers = [float(value) for value in values]
    step = kind.step if isinstance(kind, IntDistribution) else None
    return _numbers(label, numbers, log=is_log(kind), whole_step=step)


def _numbers(
    label: str, values: Sequence[float], *, log: bool = False, whole_step: int | None = None
) -> _Axis:
    """An axis of numbers, with marks at its ends, and at powers of ten or in the middle.

    Args:
        label: Its name.
        values: Of the trials.
        log: Whether it is logarithmic.
        whole_step: Of whole numbers the step between them: only such are marked.
    """
    scaled = [math.log10(value) for value in values] if log else list(values)
    low, high = min(scaled), max(scaled)
    spread = (high - low) or 1.0
    middle = (low + high) / 2
    if whole_step:
        middle = low + whole_step * round((middle - low) / whole_step)
    marks = [low, high, *(range(math.ceil(low), math.floor(high) + 1) if log else [middle])]
    ticks = {
        (mark - low) / spread: _number(10**mark if log else mark, 3, is_whole=bool(whole_step))
        for mark in sorted(marks)
    }
    apart = [t for t in ticks.items() if t[0] in (0.0, 1.0) or 0.08 < t[0] < 0.92]
    places = [(value - low) / spread for value in scaled]
    texts = [_number(value, 4, is_whole=bool(whole_step)) for value in values]
    return _Axis(label, places, apart, texts)


def _number(value: float, digits: int, *, is_whole: bool) -> str:
    """Return a number with so many digits; a whole one with all of its own.

    >>> _number(0.00123456, 3, is_whole=False), _number(1024.0, 3, is_whole=True)
    ('0.00123', '1024')
    """
    return f"{value:.0f}" if is_whole else f"{value:.{digits}g}"


def _thinned(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave out marks where there are too many to be read."""
    return ticks[:: math.ceil(len(ticks) / _MOST_CHOICES)]


def _narrow(name: str) -> str:
    """Break ``group/long name`` after its group and between words, to keep heads of axes narrow.

    >>> _narrow("optimizer/backbone learning rate")
    'optimizer/<br>backbone<br>learning rate'
    """
    group, slash, rest = name.partition("/")
    lines = textwrap.wrap(rest, _LONGEST_LINE, break_long_words=False)
    return "<br>".join([group + slash, *lines]) if slash else name
