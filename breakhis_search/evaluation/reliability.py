"""Figures of calibration and of thresholds, with how to read them and their points as tables.

What is drawn as *after* is cross-fitted (:func:`.calibration.cross_fit`): no patient is shown with
a temperature that was fitted to the patient itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.calibration import pooled_sample
from breakhis_search.evaluation.calibration_scores import (
    bin_count,
    calibration_error,
    equal_mass_bins,
    error_by_chance,
)
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.predictions import class_names_of, is_binary, tables_by_seed
from breakhis_search.evaluation.ranking import count_by_threshold
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel, Sample, sample_of
from breakhis_search.evaluation.style import (
    OKABE_ITO,
    REFERENCE_COLOR,
    build_template,
    class_style,
)
from breakhis_search.evaluation.thinning import thin_line
from breakhis_search.evaluation.thresholds import (
    RULE_TITLES,
    RULES,
    Rule,
    Thresholds,
    at_threshold,
    patient_interval,
    pooled_binary_sample,
)

FIGURE_HEIGHT_PX = 640
DECIMALS = 5
"""Digits kept of a drawn point."""

_RULE_SYMBOLS: dict[Rule, str] = {
    "half": "square",
    "youden": "circle",
    "sensitivity_95": "diamond",
}
_STATE_STYLES: dict[str, dict[str, object]] = {
    "before": {"color": OKABE_ITO["orange"], "symbol": "circle-open", "dash": "dot"},
    "after": {"color": OKABE_ITO["blue"], "symbol": "circle", "dash": "solid"},
}

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def calibration_section(before: pd.DataFrame, after: pd.DataFrame) -> Section:
    """Return the reliability diagrams of both levels.

    Args:
        before: Predictions as the model gave them, of one seed or several.
        after: The same, calibrated: :func:`.calibration.cross_fit`.
    """
    if is_binary(class_names_of(before)):
        example = (
            "of all images that the model gives an 80 % probability of being malignant, 80 % "
            "should be malignant. Dots below the diagonal: fewer are malignant than the model "
            "claims; above it: more"
        )
    else:
        example = (
            "of all images that the model is 80 % sure of, whatever the class, it should get 80 % "
            "right. Dots below the diagonal: the model is surer than it should be; above it: it "
            "is right more often than it claims"
        )
    reading = (
        f"Can a probability be taken at its word? On the diagonal it can: {example}. Every dot "
        "stands for about equally many images or patients. <i>Before</i> is the model's own "
        "answer; <i>after</i> is corrected for how often the classes were shown in training and "
        "for over- or under-confidence, as learned from other patients. By patient, read the bars "
        "(95 % Wilson intervals) rather than the dots, and compare a distance with what luck alone "
        "makes; the mean over many images is often more cautious than it need be."
    )
    figures = [reliability_figure(before, after, level) for level in DRAWN_LEVELS]
    return Section("Calibration", reading, figures, [])


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


def reliability_points(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return the dots of the reliability diagrams, both levels, before and after.

    In the binary task the claim is the probability of *malignant*, and it comes true where a case
    is; among several classes it is that of the most probable one.

    Returns:
        Columns ``level``, ``state`` (``before`` or ``after``), ``bin`` (from 0), ``count`` (images
        or patients of all seeds), ``patients`` (distinct accessions), ``claimed`` (mean
        probability), ``happened`` (share), and ``low`` and ``high`` of its 95 % Wilson interval:
        NaN for images, which are not independent, and below five patients.
    """
    frames = [
        _bins(_claims(pooled_sample(table, level)), level, table["seed"].nunique()).assign(
            level=level, state=state
        )
        for level in DRAWN_LEVELS
        for state, table in (("before", before), ("after", after))
    ]
    points = pd.concat(frames, ignore_index=True)
    return points[["level", "state", *(c for c in points if c not in {"level", "state"})]]


def threshold_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return sensitivity and specificity for *malignant* at every threshold, both levels.

    Args:
        table: Calibrated predictions of the binary task, with both classes.

    Returns:
        Columns ``level``, ``threshold`` (ascending; every score that occurs), ``sensitivity``,
        ``specificity``.
    """
    return pd.concat([_rates(table, level) for level in DRAWN_LEVELS], ignore_index=True)


def reliability_figure(before: pd.DataFrame, after: pd.DataFrame, level: DrawnLevel) -> go.Figure:
    """Return the reliability diagram of a level; see :func:`calibration_section`."""
    binary = is_binary(class_names_of(before))
    figure = _square(
        f"Calibration, {_count_in_words(before, level)}",
        x="claimed probability of malignant" if binary else "claimed probability of the answer",
        y=f"share of {level}s that {'are malignant' if binary else 'are right'}",
    )
    figure.update_layout(legend_title={"text": "mean distance from the diagonal", "side": "top"})
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name=_diagonal_name(after, level),
        line={"color": REFERENCE_COLOR, "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )
    points = reliability_points(before, after)
    for state, table in (("before", before), ("after", after)):
        dots = points[(points["level"] == level) & (points["state"] == state)]
        _add_dots(figure, dots, f"{state}, {_mean_error(table, level):.3f}", state)
    return figure


def threshold_figure(table: pd.DataFrame, thresholds: Thresholds, level: DrawnLevel) -> go.Figure:
    """Return sensitivity and specificity against the threshold; see :func:`threshold_section`."""
    figure = _square(
        f"Thresholds, {_count_in_words(table, level)}",
        x="threshold (calibrated probability of malignant)",
        y=f"share of {level}s that are called right",
    )
    figure.update_layout(legend_title={"text": "sensitivity · specificity", "side": "top"})
    rates = _rates(table, level)
    for rate, name in (("sensitivity", "malignant"), ("specificity", "benign")):
        _add_rate(figure, rates, rate, name)
    for rule in RULES:
        _add_rule(figure, table, rule, thresholds.value(level, rule), level)
    return figure


def _claims(sample: Sample) -> tuple[FloatArray, BoolArray, npt.NDArray[np.object_]]:
    """Return what is claimed, whether it came true, and of whom."""
    if is_binary(sample.class_names):
        return sample.probabilities[:, 1], sample.y_true == 1, sample.accession
    right = sample.y_pred == sample.y_true
    return sample.probabilities.max(axis=1), right, sample.accession


def _bins(
    claims: tuple[FloatArray, BoolArray, npt.NDArray[np.object_]], level: DrawnLevel, seeds: int
) -> pd.DataFrame:
    claimed, happened, accession = claims
    frame = pd.DataFrame({"claimed": claimed, "happened": happened, "accession": accession})
    frame["bin"] = equal_mass_bins(claimed, bin_count(len(claimed) // seeds))
    groups = frame.groupby("bin", sort=True)
    bins = pd.DataFrame(
        {
            "count": groups.size(),
            "patients": groups["accession"].nunique(),
            "claimed": groups["claimed"].mean(),
            "happened": groups["happened"].mean(),
        }
    ).reset_index()
    bounds = [
        _bounds(share, count / seeds, level)
        for share, count in zip(bins["happened"], bins["count"], strict=True)
    ]
    bins[["low", "high"]] = np.array(bounds).reshape(-1, 2)
    return bins


def _bounds(share: float, patients: float, level: DrawnLevel) -> tuple[float, float]:
    """Return the interval of a share of so many patients, NaN where there is none."""
    interval = patient_interval(share, patients) if level == "patient" else None
    return interval or (np.nan, np.nan)


def _mean_error(table: pd.DataFrame, level: DrawnLevel) -> float:
    """Return the calibration error of what is drawn, the mean over the seeds."""
    claims = [_claims(sample_of(part, level)) for part in tables_by_seed(table)]
    return float(np.mean([calibration_error(claimed, came) for claimed, came, _ in claims]))


def _diagonal_name(after: pd.DataFrame, level: DrawnLevel) -> str:
    if level == "image":  # images of one patient go wrong together: luck has no simple size
        return "perfect"
    claimed, _, _ = _claims(sample_of(tables_by_seed(after)[0], level))
    return f"perfect (luck alone: {error_by_chance(claimed):.3f})"


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


def _square(title: str, *, x: str, y: str) -> go.Figure:
    """Return an empty figure over the unit square with room for a legend of four lines."""
    figure = go.Figure(
        layout={"template": build_template(), "title": title, "height": FIGURE_HEIGHT_PX}
    )
    ticks = {"tickvals": np.linspace(0, 1, 6), "range": [-0.01, 1.01], "constrain": "domain"}
    figure.update_xaxes(title=x, **ticks)
    figure.update_yaxes(title=y, scaleanchor="x", constraintoward="top", **ticks)
    return figure


def _count_in_words(table: pd.DataFrame, level: DrawnLevel) -> str:
    """Return such as ``341 images`` or ``57 patients × 3 seeds``."""
    seeds = tables_by_seed(table)
    count = len(sample_of(seeds[0], level).y_true)
    words = f"{count:,} {level}" + ("" if count == 1 else "s")
    return words if len(seeds) == 1 else f"{words} × {len(seeds)} seeds"


def _add_dots(figure: go.Figure, dots: pd.DataFrame, name: str, state: str) -> None:
    style = _STATE_STYLES[state]
    above, below = dots["high"] - dots["happened"], dots["happened"] - dots["low"]
    figure.add_scatter(
        x=dots["claimed"].round(DECIMALS).to_list(),
        y=dots["happened"].round(DECIMALS).to_list(),
        customdata=dots[["count", "patients"]].to_numpy().tolist(),
        name=name,
        mode="lines+markers",
        line={"color": style["color"], "dash": style["dash"], "width": 1.5},
        marker={
            "symbol": style["symbol"],
            "size": 10,
            "color": style["color"],
            "line": {"width": 2, "color": style["color"]},
        },
        error_y=_error_bars(above, below) if state == "after" and above.notna().any() else None,
        hovertemplate=f"{state}<br>claimed %{{x:.2f}}, came true %{{y:.2f}}"
        "<br>%{customdata[0]} cases of %{customdata[1]} patients<extra></extra>",
    )


def _error_bars(above: pd.Series, below: pd.Series) -> Mapping[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": above.clip(lower=0).round(DECIMALS).to_list(),
        "arrayminus": below.clip(lower=0).round(DECIMALS).to_list(),
        "thickness": 1,
        "width": 3,
    }


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
