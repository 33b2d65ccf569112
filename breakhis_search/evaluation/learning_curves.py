"""Figures of how a trial learned: loss, score and learning rate of every fold by epoch.

The history has one row per fold and epoch. Columns ``fold`` and ``epoch`` (which counts on from
one phase to the next) are needed; ``phase``, ``loss``, ``val_loss``, ``score`` and
``learning_rate`` are drawn where they are there.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from breakhis_search.errors import DataError
from breakhis_search.evaluation.axes import empty_figure
from breakhis_search.evaluation.style import (
    REFERENCE_COLOR,
    label_of,
    series_color,
)

LEARNING_HEIGHT_PX = 420


def check_history(history: pd.DataFrame) -> None:
    """Raise unless every row of the history can be placed.

    Raises:
        DataError: ``fold`` or ``epoch`` is missing, or an epoch of a fold stands there twice.
    """
    if history.empty:
        return
    missing = [column for column in ("fold", "epoch") if column not in history.columns]
    if missing:
        raise DataError(
            "columns are missing from a training history",
            expected="fold and epoch",
            received=f"a history without {', '.join(missing)}",
        )
    if history.duplicated(["fold", "epoch"]).any():
        raise DataError(
            "an epoch stands twice in a training history",
            expected="one row per fold and epoch, epochs counted on through all phases",
        )


def best_epochs(history: pd.DataFrame) -> dict[int, int]:
    """Return the best epoch of every fold: the highest score, else the lowest validation loss.

    The first one wins a tie; a fold with neither has no entry.

    >>> best_epochs(pd.DataFrame({"fold": [0, 0, 0], "epoch": [0, 1, 2], "score": [0.5, 0.7, 0.7]}))
    {0: 1}
    """
    for column, sign in (("score", 1.0), ("val_loss", -1.0)):
        if _has(history, column):
            known = history.dropna(subset=[column]).sort_values(["fold", "epoch"])
            rows = (sign * known[column]).groupby(known["fold"], sort=True).idxmax()
            best = known.loc[rows, ["fold", "epoch"]]
            return {int(fold): int(epoch) for fold, epoch in best.itertuples(index=False)}
    return {}


def loss_figure(history: pd.DataFrame) -> go.Figure | None:
    """Return training and validation loss by epoch, or ``None`` if neither was recorded.

    A finalist is validated after its last epoch alone: that is a point, and no curve.
    """
    if not (_has(history, "loss") or _has(history, "val_loss")):
        return None
    is_validated = _is_validated(history)
    title = "Loss by epoch" if is_validated else "Training loss by epoch"
    figure = _epoch_figure(history, title, "loss")
    _add_series(figure, history, "loss", dash="dot", legend=not is_validated)
    if is_validated:
        _add_series(figure, history, "val_loss", dash="solid", legend=True)
    _add_best(figure, history, "val_loss")
    if is_validated and _has(history, "loss"):
        _add_key(figure, "training", "dot")
        _add_key(figure, "validation", "solid")
    return figure


def score_figure(history: pd.DataFrame) -> go.Figure | None:
    """Return the validation score by epoch, or ``None`` if it was not recorded."""
    if not _has(history, "score"):
        return None
    figure = _epoch_figure(history, "Validation score by epoch", "score")
    _add_series(figure, history, "score", dash="solid", legend=True)
    _add_best(figure, history, "score")
    return figure


def learning_rate_figure(history: pd.DataFrame) -> go.Figure | None:
    """Return the learning rate by epoch, or ``None`` if it was not recorded."""
    if not _has(history, "learning_rate"):
        return None
    figure = _epoch_figure(history, "Learning rate by epoch", "learning rate")
    _add_series(figure, history, "learning_rate", dash="solid", legend=True)
    if (history["learning_rate"].dropna() > 0).all():
        figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return figure


def reading_of(history: pd.DataFrame) -> str:
    """Return how to read the figures, in words: only of what is drawn in them."""
    sentences = ["One colour per fold."]
    if _was_chosen(history):
        sentences.append("The star is the epoch whose weights are kept.")
    elif _has(history, "val_loss"):
        sentences.append("The number of epochs was fixed beforehand: the last weights are kept.")
        if not _is_validated(history):
            sentences.append("They alone were validated; the star is their validation loss.")
    if _is_validated(history) and _has(history, "loss"):
        sentences.append("Validation loss that rises while training loss falls is overfitting.")
    return " ".join(sentences)


def _is_validated(history: pd.DataFrame) -> bool:
    """Tell whether there is a curve of validation losses, and not those of last epochs alone."""
    if not _has(history, "val_loss"):
        return False
    most = history.dropna(subset=["val_loss"]).groupby("fold").size().max()
    return _was_chosen(history) or bool(most > 1)


def _has(history: pd.DataFrame, column: str) -> bool:
    return column in history.columns and bool(history[column].notna().any())


def _epoch_figure(history: pd.DataFrame, title: str, y_title: str) -> go.Figure:
    # Never a tick at half an epoch.
    ticks = {"dtick": 1} if history["epoch"].nunique() <= 12 else {}
    figure = empty_figure(
        title, LEARNING_HEIGHT_PX, xaxis={"title": "epoch", **ticks}, yaxis={"title": y_title}
    )
    for epoch, phase in _phase_starts(history):
        figure.add_vline(
            x=epoch - 0.5,
            line={"color": REFERENCE_COLOR, "dash": "dot", "width": 1},
            annotation={"text": label_of(phase), "font": {"color": REFERENCE_COLOR, "size": 11}},
            annotation_position="top right",
        )
    return figure


def _phase_starts(history: pd.DataFrame) -> list[tuple[int, str]]:
    """Return (epoch, phase) wherever a later phase begins, once per epoch for all folds."""
    if not _has(history, "phase"):
        return []
    starts = history.groupby(["fold", "phase"])["epoch"].min().reset_index()
    later = starts[starts["epoch"] > history["epoch"].min()]
    unique = later[["epoch", "phase"]].drop_duplicates().sort_values("epoch")
    return [(int(epoch), str(phase)) for epoch, phase in unique.itertuples(index=False)]


def _add_series(
    figure: go.Figure, history: pd.DataFrame, column: str, *, dash: str, legend: bool
) -> None:
    """Add one line per fold; only the series with ``legend`` names the folds."""
    if not _has(history, column):
        return
    for index, (fold, rows) in enumerate(history.groupby("fold", sort=True)):
        ordered = rows.sort_values("epoch")
        figure.add_scatter(
            x=ordered["epoch"].to_list(),
            y=ordered[column].to_list(),
            name=f"fold {fold}",
            legendgroup=f"fold {fold}",
            showlegend=legend,
            mode="lines+markers" if len(ordered) <= 40 else "lines",
            marker={"size": 4},
            line={"color": series_color(index), "dash": dash, "width": 2},
            hovertemplate=f"fold {fold}, epoch %{{x}}<br>{column} %{{y:.4g}}<extra></extra>",
        )


def _add_best(figure: go.Figure, history: pd.DataFrame, column: str) -> None:
    """Mark the best epoch of every fold on the line of a column."""
    best = best_epochs(history)
    if not best or not _has(history, column):
        return
    values = history.set_index(["fold", "epoch"])[column]
    name = "best epoch"
    if not _was_chosen(history):
        what = "last epoch" if _is_validated(history) else "validation loss after the last epoch"
        name = f"{what}, fixed beforehand"
    folds = sorted(int(fold) for fold in history["fold"].unique())
    figure.add_scatter(
        x=list(best.values()),
        y=[float(values.loc[key]) for key in best.items()],
        name=name,
        mode="markers",
        marker={
            "symbol": "star",
            "size": 14,
            "color": [series_color(folds.index(fold)) for fold in best],
            "line": {"color": "black", "width": 1},
        },
        hovertemplate=f"{name} %{{x}}<br>%{{y:.4g}}<extra></extra>",
    )


def _was_chosen(history: pd.DataFrame) -> bool:
    """Tell whether an epoch was chosen by its score; a finalist is scored after its last one."""
    return _has(history, "score")


def _add_key(figure: go.Figure, name: str, dash: str) -> None:
    """Explain a line style in the legend."""
    figure.add_scatter(
        x=[None],
        y=[None],
        name=name,
        mode="lines",
        line={"color": REFERENCE_COLOR, "dash": dash, "width": 2},
    )
