"""Figures of calibration, with how to read them and their points as tables.

What is drawn as *after* is cross-fitted (:func:`.calibration.cross_fit`): no patient is shown with
a temperature that was fitted to the patient itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.axes import reference_line, unit_square
from breakhis_search.evaluation.calibration import pooled_sample
from breakhis_search.evaluation.calibration_scores import (
    bin_count,
    calibration_error,
    equal_mass_bins,
    error_by_chance,
)
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.predictions import class_names_of, is_binary, tables_by_seed
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel, Sample, sample_of
from breakhis_search.evaluation.style import (
    DASHES,
    OKABE_ITO,
    class_style,
    label_of,
    series_color,
)
from breakhis_search.evaluation.thresholds import patient_interval

DECIMALS = 5
"""Digits kept of a drawn point."""

_DISTANCE = "mean distance from the diagonal"
_HOVER = (
    "claimed %{x:.2f}, came true %{y:.2f}"
    "<br>%{customdata[0]} cases of %{customdata[1]} patients<extra></extra>"
)

_STATE_STYLES: dict[str, dict[str, object]] = {
    "before": {"color": OKABE_ITO["orange"], "symbol": "circle-open", "dash": "dot"},
    "after": {"color": OKABE_ITO["blue"], "symbol": "circle", "dash": "solid"},
}

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Claims = tuple[FloatArray, BoolArray, npt.NDArray[np.object_]]
"""What is claimed, whether it came true, and of whom."""


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


def reliability_figure(before: pd.DataFrame, after: pd.DataFrame, level: DrawnLevel) -> go.Figure:
    """Return the reliability diagram of a level; see :func:`calibration_section`."""
    binary = is_binary(class_names_of(before))
    figure = unit_square(
        f"Calibration, {cases_in_words(before, level)}",
        axes=_axes(level, binary=binary),
        legend=_DISTANCE,
        lines=3,
    )
    figure.add_scatter(x=[0, 1], y=[0, 1], **reference_line(_diagonal_name(after, level)))
    points = reliability_points(before, after)
    for state, table in (("before", before), ("after", after)):
        dots = points[(points["level"] == level) & (points["state"] == state)]
        _add_dots(figure, dots, f"{state}, {_mean_error(table, level):.3f}", state)
    return figure


def magnification_reliability_figure(table: pd.DataFrame) -> go.Figure | None:
    """Return the calibration of the images of each magnification; ``None`` where there is one.

    Args:
        table: Predictions of one seed or several, calibrated or not.
    """
    magnifications = sorted(table["magnification"].unique())
    if len(magnifications) < 2:
        return None
    binary = is_binary(class_names_of(table))
    figure = _partial_figure("by magnification", len(magnifications), binary=binary)
    for index, magnification in enumerate(magnifications):
        part = table[table["magnification"] == magnification]
        claims = [_claims(sample) for sample in _image_samples(part)]
        line = {"color": series_color(index), "dash": DASHES[index % len(DASHES)]}
        _add_part(figure, claims, f"{magnification}×", line)
    return figure


def class_reliability_figure(table: pd.DataFrame) -> go.Figure | None:
    """Return the calibration of the probability of each class; ``None`` of two classes.

    Of two, the one is the other's mirror image, which :func:`reliability_figure` shows.

    Args:
        table: Predictions of one seed or several, calibrated or not.
    """
    names = class_names_of(table)
    if is_binary(names):
        return None
    figure = _partial_figure("by class", len(names), binary=False)
    figure.update_xaxes(title="claimed probability of the class")
    figure.update_yaxes(title="share of images that are of the class")
    samples = _image_samples(table)
    for index, name in enumerate(names):
        claims = [(s.probabilities[:, index], s.y_true == index, s.accession) for s in samples]
        style = class_style(name)
        _add_part(figure, claims, label_of(name), {"color": style.color, "dash": style.dash})
    return figure


def _image_samples(table: pd.DataFrame) -> list[Sample]:
    return [sample_of(part, "image") for part in tables_by_seed(table)]


def _partial_figure(what: str, parts: int, *, binary: bool) -> go.Figure:
    figure = unit_square(
        f"Calibration {what}, images",
        axes=_axes("image", binary=binary),
        legend=_DISTANCE,
        lines=parts + 1,
    )
    figure.add_scatter(x=[0, 1], y=[0, 1], **reference_line("perfect"))
    return figure


def _add_part(
    figure: go.Figure, by_seed: list[Claims], name: str, line: Mapping[str, object]
) -> None:
    error = float(np.mean([calibration_error(claimed, came) for claimed, came, _ in by_seed]))
    pooled: Claims = (
        np.concatenate([claimed for claimed, _, _ in by_seed]),
        np.concatenate([came for _, came, _ in by_seed]),
        np.concatenate([accession for _, _, accession in by_seed]),
    )
    dots = _bins(pooled, "image", len(by_seed))
    figure.add_scatter(
        x=dots["claimed"].round(DECIMALS).to_list(),
        y=dots["happened"].round(DECIMALS).to_list(),
        customdata=dots[["count", "patients"]].to_numpy().tolist(),
        name=f"{name}, {error:.3f}",
        mode="lines+markers",
        line={**line, "width": 1.5},
        marker={"size": 7},
        hovertemplate=f"{name}<br>{_HOVER}",
    )


def _axes(level: DrawnLevel, *, binary: bool) -> tuple[str, str]:
    return (
        "claimed probability of malignant" if binary else "claimed probability of the answer",
        f"share of {level}s that {'are malignant' if binary else 'are right'}",
    )


def _claims(sample: Sample) -> Claims:
    """Return what is claimed, whether it came true, and of whom."""
    if is_binary(sample.class_names):
        return sample.probabilities[:, 1], sample.y_true == 1, sample.accession
    right = sample.y_pred == sample.y_true
    return sample.probabilities.max(axis=1), right, sample.accession


def _bins(claims: Claims, level: DrawnLevel, seeds: int) -> pd.DataFrame:
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


def cases_in_words(table: pd.DataFrame, level: DrawnLevel) -> str:
    """Return how many are shown, such as ``341 images`` or ``57 patients × 3 seeds``."""
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
        hovertemplate=f"{state}<br>{_HOVER}",
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
