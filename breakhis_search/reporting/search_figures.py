"""Figures of a whole search: how it went, what mattered, what was tried."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.evaluation.axes import empty_figure
from breakhis_search.evaluation.style import (
    OKABE_ITO,
    REFERENCE_COLOR,
    label_of,
    series_color,
)
from breakhis_search.study.budget import REASON

HEIGHT_PX = 420
BAR_PX = 26
SLICES = 8
"""So many hyperparameters, the most important ones, have a figure of their own."""

_WITHOUT_SCORE = (
    (TrialState.PRUNED, "pruned", OKABE_ITO["orange"], "x-thin-open"),
    (TrialState.FAIL, "failed", OKABE_ITO["vermillion"], "triangle-up"),
)

_FEW = 12
"""Up to so many trials, or whole numbers, each has a mark of its own on an axis."""

_ENOUGH = 4
"""Complete trials without which importance says nothing."""

_LINE = 60
"""Letters of a line of what is shown beside the pointer."""


def history_figure(
    trials: Sequence[FrozenTrial], title: str, reasons: Mapping[int, str] = MappingProxyType({})
) -> go.Figure | None:
    """Return the score of every complete trial in order, with the best so far.

    Pruned and failed trials have no score out-of-fold, whatever an epoch of a fold came to: they
    are marks at the foot of the figure, on an axis of their own that moves nothing.

    Args:
        trials: All trials of a study.
        title: Of the objective, such as ``AUROC``.
        reasons: By number, why a trial has no score, such as where it was pruned; of those that
            failed Optuna knows it, too.
    """
    complete = complete_trials(trials)
    if not complete:
        return None
    figure = empty_figure(f"{label_of(title)} of every trial", HEIGHT_PX)
    numbers, values = [t.number for t in complete], [float(t.value or 0.0) for t in complete]
    _add_marks(figure, "complete", numbers, OKABE_ITO["blue"], "circle", y=values)
    for state, name, color, symbol in _WITHOUT_SCORE:
        ended = [t for t in trials if t.state == state]
        if ended:
            told = [_told_of(reasons.get(t.number, ""), t) for t in ended]
            marked = f"{name} (no score, at the foot)"
            _add_marks(figure, marked, [t.number for t in ended], color, symbol, told=told)
    figure.add_scatter(
        x=numbers,
        y=np.maximum.accumulate(values).tolist(),
        name="best so far",
        mode="lines",
        line={"color": OKABE_ITO["black"], "width": 2, "shape": "hv"},
        hovertemplate="after trial %{x}: %{y:.4f}<extra></extra>",
    )
    figure.update_xaxes(title="trial", tickformat="d", dtick=1 if len(trials) <= _FEW else None)
    # The second axis is the foot's: it has no numbers, and stays where it is when one zooms.
    figure.update_layout(
        yaxis={"title": label_of(title)},
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return figure


def _told_of(reason: str, trial: FrozenTrial) -> str:
    """What is told of a trial without a score, in lines; empty where nothing is known."""
    # Of a pruned trial Optuna may still hold why it was interrupted once.
    if not reason and trial.state == TrialState.FAIL:
        reason = str(trial.user_attrs.get(REASON, ""))
    return "".join(f"<br>{escape(line)}" for line in textwrap.wrap(reason, _LINE))


def _add_marks(
    figure: go.Figure,
    name: str,
    numbers: list[int],
    color: str,
    symbol: str,
    *,
    y: Sequence[float] = (),
    told: Sequence[str] = (),
) -> None:
    """Add a mark per trial: at its score, or without one at the foot with what is told of it."""
    place = {"y": y} if y else {"y": [0.0] * len(numbers), "yaxis": "y2", "cliponaxis": False}
    figure.add_scatter(
        x=numbers,
        name=f"{name}, {len(numbers)}",
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": 8, "line": {"width": 1.5}},
        customdata=told or None,
        hovertemplate=f"trial %{{x}}, {name.partition(' (')[0]}"
        + ("<br>%{y:.4f}" if y else "%{customdata}")
        + "<extra></extra>",
        **place,
    )


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return how much of the difference between good trials and others each hyperparameter tells.

    PED-ANOVA (S. Watanabe, A. Bansal, F. Hutter, IJCAI 2023), as Optuna has it, over the
    hyperparameters that every complete trial has; empty where too few trials say nothing.
    """
    complete = complete_trials(trials)
    names = [n for n in common_parameters(complete) if len({t.params[n] for t in complete}) > 1]
    if len(complete) < _ENOUGH or not names:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    except (ValueError, RuntimeError):  # all scores are equal
        return {}
    known = {name: value for name, value in found.items() if math.isfinite(value)}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def importance_figure(found: Mapping[str, float]) -> go.Figure | None:
    """Return the importances as bars, the largest on top."""
    if not found:
        return None
    names = list(found)[::-1]
    figure = empty_figure("What told good trials from others", 130 + BAR_PX * len(names))
    figure.add_bar(
        x=[found[name] for name in names],
        y=[label_of(name) for name in names],
        orientation="h",
        marker_color=OKABE_ITO["blue"],
        text=[f"{found[name]:.2f}" for name in names],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure.update_xaxes(title="share (PED-ANOVA)", rangemode="tozero")
    return figure


def slice_figures(
    trials: Sequence[FrozenTrial], names: Sequence[str], title: str
) -> list[go.Figure]:
    """Return the score against one hyperparameter each, for the first :data:`SLICES` names."""
    return [_slice(complete_trials(trials), name, title) for name in list(names)[:SLICES]]


def _slice(trials: Sequence[FrozenTrial], name: str, title: str) -> go.Figure:
    having = [t for t in trials if name in t.params]
    kind = having[0].distributions[name]
    is_choice = isinstance(kind, CategoricalDistribution)
    figure = empty_figure(label_of(name), HEIGHT_PX - 80)
    figure.add_scatter(
        x=[label_of(str(t.params[name])) if is_choice else t.params[name] for t in having],
        y=[t.value for t in having],
        mode="markers",
        marker={"color": OKABE_ITO["blue"], "size": 8, "opacity": 0.7},
        customdata=[t.number for t in having],
        hovertemplate="trial %{customdata}<br>%{x}: %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(
        title=label_of(name), type="category" if is_choice else "log" if is_log(kind) else "linear"
    )
    if isinstance(kind, CategoricalDistribution):  # as declared, not as trials came upon them
        choices = [label_of(str(choice)) for choice in kind.choices]
        figure.update_xaxes(categoryorder="array", categoryarray=choices)
    if isinstance(kind, IntDistribution) and not kind.log and kind.high - kind.low <= _FEW:
        figure.update_xaxes(tickformat="d", dtick=1)  # plotly would write 2.5 between 2 and 3
    figure.update_yaxes(title=label_of(title))
    return figure


def groups_figure(trials: pd.DataFrame, column: str, title: str) -> go.Figure | None:
    """Return the scores of the complete trials by architecture or sampling strategy.

    Args:
        trials: Rows of the leaderboard.
        column: ``architecture`` or ``sampling``.
        title: Of the objective.
    """
    scored = trials[trials["score"].notna()]
    groups = scored.groupby(column, sort=True)["score"]
    if len(groups) < 2:
        return None
    figure = empty_figure(f"{label_of(title)} by {column}", HEIGHT_PX - 40)
    for number, (name, scores) in enumerate(groups):
        figure.add_box(
            y=scores.tolist(),
            # One word a line: a long name would be turned, and run out of the picture.
            name=f"{label_of(str(name)).replace(' ', '<br>')}<br>({len(scores)})",
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            marker={"color": series_color(number), "size": 6},
            line={"color": REFERENCE_COLOR, "width": 1.2},
            fillcolor="rgba(0,0,0,0)",
        )
    figure.update_layout(showlegend=False)
    figure.update_yaxes(title=label_of(title))
    return figure


def common_parameters(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the hyperparameters that every one of these trials has, by name."""
    if not trials:
        return []
    shared = set.intersection(*(set(trial.params) for trial in trials))
    return sorted(shared)


def complete_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those of the trials that have a score."""
    return [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]


def is_log(kind: BaseDistribution) -> bool:
    """Return whether a hyperparameter is searched on a logarithmic scale."""
    return bool(getattr(kind, "log", False))
