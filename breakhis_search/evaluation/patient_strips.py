"""Every patient as one strip: the probabilities of all images, and their mean."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import PurePath

import pandas as pd
import plotly.graph_objects as go

from breakhis_search.evaluation.mistakes import mean_over_seeds
from breakhis_search.evaluation.predictions import (
    PROBABILITY_PREFIX,
    class_names_of,
    is_binary,
)
from breakhis_search.evaluation.style import (
    GRID_COLOR,
    OKABE_ITO,
    REFERENCE_COLOR,
    build_template,
    label_of,
)

ROW_PX = 30
"""Height of a patient's row: its label has two lines of 10 px."""

TITLE_TOP_PX = 12
LEGEND_TOP_PX = 38
MARGIN_TOP_PX = 158
"""Room for the title, a legend of three rows (on a phone) and the axis."""

MARGIN_BOTTOM_PX = 24
LABEL_FONT_PX = 10
MARK_PX = 11
MEAN_MARK_PX = 19

PROBABILITY_DECIMALS = 3
"""Digits kept of a drawn probability: a thousandth is less than a pixel."""


@dataclass(frozen=True)
class _Row:
    """A row of the figure: a patient, or the heading of a class (no images).

    Attributes:
        label: What stands left of it, as HTML that plotly reads.
        images: The patient's images with ``shown`` (the probability on the axis) and ``right``.
    """

    label: str
    images: pd.DataFrame | None


def patient_strips(table: pd.DataFrame) -> go.Figure:
    """Return one row per patient with a mark for every image at its probability.

    The axis is p(malignant) in the binary task and p(true class) else. Patients stand by class,
    then by mean probability; images scored by several seeds have one mark, at the mean over them.
    """
    rows, what = _rows(table), _axis_title(table)
    height = MARGIN_TOP_PX + MARGIN_BOTTOM_PX + ROW_PX * len(rows)
    figure = go.Figure(layout={"template": build_template(), "height": height})
    _add_images(figure, rows, what, right=True)
    _add_images(figure, rows, what, right=False)
    _add_means(figure, rows, what)
    _lay_out(figure, rows, what)
    if is_binary(class_names_of(table)):
        line = {"color": REFERENCE_COLOR, "dash": "dot", "width": 1.5}
        figure.add_vline(x=0.5, line=line, layer="below")
    return figure


def _axis_title(table: pd.DataFrame) -> str:
    return "p(malignant)" if is_binary(class_names_of(table)) else "p(true class)"


def _rows(table: pd.DataFrame) -> list[_Row]:
    """Return headings and patients from top to bottom."""
    names, images = class_names_of(table), _shown_images(table)
    rows = []
    for y_true, of_class in images.groupby("y_true", sort=True):
        patients = [patient for _, patient in of_class.groupby("accession", sort=True)]
        patients.sort(key=lambda patient: patient["shown"].mean())
        rows.append(_Row(_heading(names[int(str(y_true))], len(patients)), None))
        rows += [_Row(_patient_label(patient), patient) for patient in patients]
    return rows


def _shown_images(table: pd.DataFrame) -> pd.DataFrame:
    names, images = class_names_of(table), mean_over_seeds(table)
    columns = [PROBABILITY_PREFIX + name for name in names]
    if is_binary(names):
        images["shown"] = images[columns[1]]
    else:
        every = images[columns].to_numpy()
        images["shown"] = every[range(len(images)), images["y_true"]]
    images["right"] = images["y_pred"] == images["y_true"]
    return images


def _heading(name: str, patients: int) -> str:
    return f"<b>{label_of(name)}</b><br>{patients} patient" + ("" if patients == 1 else "s")


def _patient_label(images: pd.DataFrame) -> str:
    """Accession and number of images, below them the tumour types."""
    types = ", ".join(label_of(name) for name in sorted(images["type"].unique()))
    accession = label_of(str(images["accession"].iloc[0]))
    count = f"{len(images)} image" + ("" if len(images) == 1 else "s")
    return f"{accession} · {count}<br><span style='color:#595959'>{types}</span>"


def _add_images(figure: go.Figure, rows: list[_Row], what: str, *, right: bool) -> None:
    parts = [
        row.images[row.images["right"] == right].assign(row=number)
        for number, row in enumerate(rows)
        if row.images is not None
    ]
    marks = pd.concat(parts)
    # The wrong ones differ in shape too; both are thin, so that a hundred of them make a density.
    look = (
        {"symbol": "line-ns-open", "color": OKABE_ITO["sky blue"], "line": {"width": 1}}
        if right
        else {"symbol": "x-thin-open", "color": OKABE_ITO["vermillion"], "line": {"width": 1.2}}
    )
    figure.add_scatter(
        name=f"image, {'right' if right else 'wrong'} class ({len(marks):,})",
        x=marks["shown"].round(PROBABILITY_DECIMALS).to_list(),
        y=marks["row"].to_list(),
        customdata=[_name_of_file(path) for path in marks["image"]],
        mode="markers",
        marker={"size": MARK_PX if right else MARK_PX - 4, **look},
        hovertemplate=f"%{{customdata}}<br>{what} %{{x:.3f}}<extra></extra>",
    )


def _name_of_file(path: str) -> str:
    """Return the name of an image without folder and ending, safe inside a figure.

    >>> _name_of_file("benign/40X/SOB_B_A-14-22549AB-40-001.png")
    'SOB_B_A-14-22549AB-40-001'
    """
    return escape(PurePath(path).stem)


def _add_means(figure: go.Figure, rows: list[_Row], what: str) -> None:
    patients = [(number, row) for number, row in enumerate(rows) if row.images is not None]
    figure.add_scatter(
        name="the patient's mean",
        x=[_mean(row) for _, row in patients],
        y=[number for number, _ in patients],
        customdata=[row.label for _, row in patients],
        mode="markers",
        marker={
            "symbol": "line-ns-open",
            "size": MEAN_MARK_PX,
            "color": OKABE_ITO["black"],
            "line": {"width": 3},
        },
        hovertemplate=f"%{{customdata}}<br>mean {what} %{{x:.3f}}<extra></extra>",
    )


def _mean(row: _Row) -> float:
    return 0.0 if row.images is None else round(float(row.images["shown"].mean()), 3)


def _lay_out(figure: go.Figure, rows: list[_Row], what: str) -> None:
    figure.update_layout(
        title={
            "text": f"Every image of every patient by {what}",
            "y": 1 - TITLE_TOP_PX / figure.layout.height,
            "yanchor": "top",
        },
        margin={"t": MARGIN_TOP_PX, "b": MARGIN_BOTTOM_PX},
        legend={"y": 1 - LEGEND_TOP_PX / figure.layout.height, "yanchor": "top"},
        hovermode="closest",
    )
    figure.update_xaxes(
        title=what, side="top", range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1]
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[row.label for row in rows],
        tickfont={"size": LABEL_FONT_PX},
        range=[len(rows) - 0.5, -0.5],
        gridcolor=GRID_COLOR,
        ticks="",
    )
