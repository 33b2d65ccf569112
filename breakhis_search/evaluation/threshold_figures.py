"""Figures of the decision thresholds, with how to read them and their points as tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.axes import unit_square
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.ranking import count_by_threshold
from breakhis_search.evaluation.reliability import cases_in_words
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel
from breakhis_search.evaluation.style import OKABE_ITO, REFERENCE_COLOR, class_style
from breakhis_search.evaluation.thinning import thin_line
from breakhis_search.evaluation.thresholds import (
    RULE_TITLES,
    RULES,
    Rule,
    Thresholds,
    at_threshold,
    pooled_binary_sample,
)

DECIMALS = 5
"""Digits kept of a drawn point."""

_RULE_SYMBOLS: dict[Rule, str] = {
    "half": "square",
    "youden": "circle",
    "sensitivity_95": "diamond",
}
_LEGEND_LINES = 6
"""One more than there are: on a phone they break."""


def threshold_section(table: pd.DataFrame, thresholds: Thresholds) -> Section:
    """Return the figures of sensitivity and specificity against the threshold, of both levels.

    Args:
        table: Calibrated predictions of the binary task, with both classes.
        thresholds: As they were locked.
    """
    decides = RULE_TITLES[thresholds.decision]
    reading = (
        "From which probability on is <i>malignant</i> called? Further right, fewer benign cases "
        "are called malignant by mistake (specificity rises), but more malignant ones are missed "
        "(sensitivity falls). Marked are the thresholds that were fixed on these predictions, "
        "before the sealed test was seen: 0.5; Youden's, where sensitivity and specificity "
        "together are highest; and the highest one that still finds 95 % of the malignant. The "
        f"registered classifier decides by <b>{decides}</b>. The thresholds were chosen on these "
        "very predictions, which flatters them, the more so the fewer patients there are: the "
        "model card has their rates on patients they were not chosen on."
    )
    figures = [threshold_figure(table, thresholds, level) for level in DRAWN_LEVELS]
    return Section("Decision thresholds", reading, figures, [])


def threshold_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return sensitivity and specificity for *malignant* at every threshold, both levels.

    Args:
        table: Calibrated predictions of the binary task, with both classes.

    Returns:
        Columns ``level``, ``threshold`` (ascending; every score that occurs), ``sensitivity``,
        ``specificity``.
    """
    return pd.concat([_rates(table, level) for level in DRAWN_LEVELS], ignore_index=True)


def threshold_figure(table: pd.DataFrame, thresholds: Thresholds, level: DrawnLevel) -> go.Figure:
    """Return sensitivity and specificity against the threshold; see :func:`threshold_section`."""
    figure = unit_square(
        f"Thresholds, {cases_in_words(table, level)}",
        axes=(
            "threshold (calibrated probability of malignant)",
            f"share of {level}s that are called right",
        ),
        legend="sensitivity · specificity",
        lines=_LEGEND_LINES,
    )
    rates = _rates(table, level)
    for rate, name in (("sensitivity", "malignant"), ("specificity", "benign")):
        _add_rate(figure, rates, rate, name)
    for rule in RULES:
        _add_rule(figure, table, rule, thresholds.value(level, rule), level)
    return figure


def _rates(table: pd.DataFrame, level: DrawnLevel) -> pd.DataFrame:
    sample = pooled_binary_sample(table, level)
    counts = count_by_threshold(sample.y_true == 1, sample.probabilities[:, 1])
    rates = pd.DataFrame(
        {
            "level": level,
            "threshold": counts.thresholds,
            "sensitivity": counts.true_positives / counts.true_positives[-1],
            "specificity": 1.0 - counts.false_positives / counts.false_positives[-1],
        }
    )
    return rates.iloc[::-1].reset_index(drop=True)


def _add_rate(figure: go.Figure, rates: pd.DataFrame, rate: str, class_name: str) -> None:
    """Draw a rate as steps: it holds from the next lower score up to its own."""
    x = np.concatenate([[0.0], rates["threshold"].to_numpy(), [1.0]])
    last = 0.0 if rate == "sensitivity" else 1.0  # above every score nothing is called malignant
    y = np.concatenate([[rates[rate].iloc[0]], rates[rate].to_numpy(), [last]])
    stairs_x, stairs_y = np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]
    kept, style = thin_line(stairs_x, stairs_y), class_style(class_name)
    figure.add_scatter(
        x=stairs_x[kept].round(DECIMALS).tolist(),
        y=stairs_y[kept].round(DECIMALS).tolist(),
        name=f"{rate} ({class_name} called {class_name})",
        mode="lines",
        line={"color": style.color, "dash": style.dash, "width": style.width_px},
        hovertemplate=f"threshold %{{x:.3f}}<br>{rate} %{{y:.3f}}<extra></extra>",
    )


def _add_rule(
    figure: go.Figure, table: pd.DataFrame, rule: Rule, threshold: float, level: DrawnLevel
) -> None:
    """Mark a locked threshold on both lines and say in the legend what it does."""
    point = at_threshold(table, threshold, level)
    values = [point["sensitivity"]["value"], point["specificity"]["value"]]
    at = "" if rule == "half" else f" at {threshold:.3f}"
    figure.add_vline(x=threshold, line={"color": REFERENCE_COLOR, "dash": "dot", "width": 1})
    figure.add_scatter(
        x=[threshold, threshold],
        y=values,
        name=f"{RULE_TITLES[rule]}{at}: {_in_words(values)}",
        mode="markers",
        marker={
            "symbol": _RULE_SYMBOLS[rule],
            "size": 11,
            "color": "white",
            "line": {"color": OKABE_ITO["black"], "width": 2},
        },
        hovertemplate=f"{RULE_TITLES[rule]}, threshold %{{x:.3f}}<br>%{{y:.3f}}<extra></extra>",
    )


def _in_words(values: list[float | None]) -> str:
    return " · ".join("-" if value is None else f"{value:.2f}" for value in values)
