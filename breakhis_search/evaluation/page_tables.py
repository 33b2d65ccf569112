"""The tables of a trial's page, as HTML. Every text that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from string import ascii_lowercase
from typing import Any

import pandas as pd

from breakhis_search.data.taxonomy import TYPE_BY_NAME
from breakhis_search.evaluation.cells import ALL, COLUMNS
from breakhis_search.evaluation.intervals import Intervals
from breakhis_search.evaluation.metrics import RECOGNITION_RATE
from breakhis_search.evaluation.official_rates import RATES
from breakhis_search.evaluation.own_metrics import OWN, own_name
from breakhis_search.evaluation.predictions import class_names_of
from breakhis_search.evaluation.samples import DRAWN_LEVELS, LEVELS, Level, samples_by_seed
from breakhis_search.evaluation.style import label_of
from breakhis_search.wording import counted

UNDEFINED = "–"
"""What stands where a metric has no value."""

LEVEL_LABELS: dict[Level, str] = {
    "image": "by image",
    "patient": "by patient, mean probability",
    "patient_mean_logit": "by patient, mean logit",
    "patient_majority_vote": "by patient, majority vote",
}
"""The columns of the headline table."""

LEVEL_MEANINGS: dict[str, str] = {
    "image": "every picture counts once, and its most probable class decides.",
    "patient": "the probabilities of a patient's pictures are averaged, and every patient counts "
    "once.",
    "patient_mean_logit": "the logits of a patient's pictures are averaged before they become "
    "probabilities, so that pictures the model is sure of weigh more.",
    "patient_majority_vote": "every picture of a patient votes for its most probable class; a tie "
    "goes to the higher mean probability. A vote has no probability, and so no score of one: no "
    "AUROC, average precision, likelihood or Brier score.",
    f"patient/{RECOGNITION_RATE}": "Spanhol's rate: the share of a patient's pictures that are "
    "right, averaged over the patients. It decides nothing about a patient, and is none of the "
    "accuracies above.",
}
"""What the names in front of the slash mean, one line each."""

HEADLINE_LABELS: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision, macro",
    "f1_macro": "F1, macro",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "mcc": "Matthews correlation",
    "nll": "negative log-likelihood (lower is better)",
    "brier": "Brier score (lower is better)",
}
"""The rows of the headline table, and how they are called there.

Macro recall is left out: it is balanced accuracy by another name.
"""

CLASS_LABELS: dict[str, str] = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
}
"""The columns of the table by class."""


class _Scores:
    """Writes scores with their intervals, and gathers why some have none."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._marks: dict[str, str] = {}

    def html(self, name: str) -> str:
        """Return such as ``0.812 [0.701, 0.890]``, or the value with a letter for the reason."""
        value = self._intervals.values.get(name)
        if value is None:
            return UNDEFINED
        interval = self._intervals.known.get(name)
        if interval:
            return f'{value:.3f} <span class="interval">{interval}</span>'
        return f"{value:.3f}<sup>{self._mark(self._intervals.reasons[name])}</sup>"

    def notes(self) -> str:
        """Return the reasons behind the letters, to stand below the table."""
        if not self._marks:
            return ""
        lines = (f"<sup>{mark}</sup> {escape(reason)}" for reason, mark in self._marks.items())
        return f'<p class="note">{"<br>".join(lines)}</p>'

    def _mark(self, reason: str) -> str:
        number = len(self._marks)
        round_, letter = divmod(number, len(ascii_lowercase))
        return self._marks.setdefault(reason, ascii_lowercase[letter] * (round_ + 1))


def facts_table(facts: Mapping[str, str]) -> str:
    """Return the facts of a trial as a two-column table."""
    rows = [
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items()
    ]
    return _scrollable(f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>')


def level_list() -> str:
    """Return what each level of the scores means."""
    items = (f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in LEVEL_MEANINGS.items())
    return f'<dl class="levels">{"".join(items)}</dl>'


def headline_table(intervals: Intervals) -> str:
    """Return the headline metrics by level; a dash where there is no value."""
    scores = _Scores(intervals)
    rows = [
        [label, *(scores.html(f"{level}/{name}") for level in LEVELS)]
        for name, label in HEADLINE_LABELS.items()
    ]
    head = [
        f'{label}<br><code class="level">{level}/…</code>' for level, label in LEVEL_LABELS.items()
    ]
    return _score_table(["metric", *head], rows) + scores.notes()


def recognition_table(intervals: Intervals) -> str:
    """Return Spanhol's image and patient recognition rates by magnification."""
    scores = _Scores(intervals)
    rows = [
        [
            f"{part.removeprefix('magnification_').rstrip('/')}×" if part else "all",
            scores.html(f"{part}image/accuracy"),
            scores.html(f"{part}patient/{RECOGNITION_RATE}"),
        ]
        for part in [*_magnifications_in(intervals.values), ""]
    ]
    head = [
        'image recognition rate<br><code class="level">image/accuracy</code>',
        f'patient recognition rate<br><code class="level">patient/{RECOGNITION_RATE}</code>',
    ]
    return _score_table(["magnification", *head], rows) + scores.notes()


def own_table(metrics: Sequence[str], values: Mapping[str, float]) -> str:
    """Return metrics of the user's own (``module:function``) by level, from values by flat name."""
    rows = [
        [
            f"<code>{escape(metric)}</code>",
            *(
                UNDEFINED
                if (value := values.get(own_name(metric, level))) is None
                else f"{value:.3f}"
                for level in DRAWN_LEVELS
            ),
        ]
        for metric in metrics
    ]
    head = [
        f'{LEVEL_LABELS[level]}<br><code class="level">{OWN}{level}/…</code>'
        for level in DRAWN_LEVELS
    ]
    return _score_table(["metric", *head], rows)


def official_table(rates: pd.DataFrame) -> str:
    """Return the rates of :func:`.official_rates.official_rates`, by magnification, in percent."""
    shown = {
        (row["magnification"], row["rate"]): _percent_with_deviation(row["mean"], row["sd"])
        for row in rates.to_dict("records")
    }
    rows = [
        [f"{magnification}×", *(shown.get((magnification, rate), UNDEFINED) for rate in RATES)]
        for magnification in sorted(set(rates["magnification"]))
    ]
    return _score_table(["magnification", *(f"{rate} recognition rate" for rate in RATES)], rows)


def _percent_with_deviation(mean: float, deviation: float) -> str:
    """Return such as ``83.9 ± 4.1 %``; a single fold has no deviation.

    >>> _percent_with_deviation(0.839, 0.041), _percent_with_deviation(0.5, float("nan"))
    ('83.9 ± 4.1 %', '50.0 %')
    """
    spread = f" ± {deviation:.1%}"[:-1] if isfinite(deviation) else ""
    return f"{mean:.1%}"[:-1] + spread + " %"


def class_table(table: pd.DataFrame, intervals: Intervals) -> str:
    """Return counts and metrics of every class at image level, and recall by patient."""
    counts = [
        pd.Series(samples_by_seed(table, level)[0].y_true.tolist()).value_counts()
        for level in DRAWN_LEVELS
    ]
    scores = _Scores(intervals)
    rows = [
        [
            label_of(name),
            *(f"{of_level.get(index, 0):,}" for of_level in counts),
            *(scores.html(f"image/{metric}_{name}") for metric in CLASS_LABELS),
            scores.html(f"patient/recall_{name}"),
        ]
        for index, name in enumerate(class_names_of(table))
    ]
    head = ["class", "images", "patients", *CLASS_LABELS.values(), "recall by patient"]
    return _score_table(head, rows, counts=2) + scores.notes()


_CELL_LINES = (
    "patients right: mean probability",
    "mean logit",
    "majority vote",
    "patient recognition rate",
    "mean p(true)",
)
"""What stands below the share of right images in a cell, in the order of the columns."""


def cell_heat_table(cells: pd.DataFrame) -> str:
    """Return the cells of :func:`.cells.cell_table`, types down and magnifications across.

    The darker a cell, the more of its images are right.
    """
    numbers = zip(*(cells[column].tolist() for column in COLUMNS[2:]), strict=True)
    by_cell = dict(
        zip(zip(cells["type"], cells["magnification"], strict=True), numbers, strict=True)
    )
    types = list(dict.fromkeys(cells["type"]))
    # Row by row a type may lack a magnification; the margin of all types lacks none.
    magnifications = cells.loc[cells["type"] == ALL, "magnification"]
    body = "".join(
        f'<tr><th scope="row">{_type_header(name)}</th>'
        f"{''.join(_heat_cell(by_cell.get((name, m))) for m in magnifications)}</tr>"
        for name in types
    )
    head = "".join(f'<th scope="col">{"all" if m == ALL else f"{m}×"}</th>' for m in magnifications)
    return _scrollable(
        f'<table class="heat"><thead><tr><th scope="col">type</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _type_header(name: str) -> str:
    """Return the type, its class, and what the lines of the cells beside it are."""
    title = "all types" if name == ALL else label_of(name)
    label = "" if name == ALL else f"<small>{TYPE_BY_NAME[name].label}</small>"
    legend = f"<b>images right</b><i>{'<br>'.join(_CELL_LINES)}</i>"
    return f'<div><span>{title}{label}</span><span class="legend">{legend}</span></div>'


def _heat_cell(cell: tuple[Any, ...] | None) -> str:
    """Return one cell with its numbers and counts; a dash where there are no images."""
    if cell is None:
        return f"<td>{UNDEFINED}</td>"
    images, patients, accuracy, *others = cell
    shade = f"background:rgba(0,114,178,{0.6 * accuracy:.3f})"
    return (
        f'<td style="{shade}"><b>{accuracy:.2f}</b>'
        f"<i>{'<br>'.join(f'{value:.2f}' for value in others)}</i>"
        f"<small>{counted(images, 'image')}<br>{counted(patients, 'patient')}</small></td>"
    )


def undefined_list(reasons: Mapping[str, str]) -> str:
    """Return the metrics without a value, gathered by reason; nothing if there are none."""
    if not reasons:
        return ""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    items = [
        f"<li>{escape(reason)}: <code>{escape(', '.join(names))}</code></li>"
        for reason, names in by_reason.items()
    ]
    return (
        f"<details><summary>{len(reasons)} metrics have no value, and why</summary>"
        f"<ul>{''.join(items)}</ul></details>"
    )


def _magnifications_in(metrics: Mapping[str, float]) -> list[str]:
    """Return the prefixes of the magnifications that have metrics, ascending."""
    heads = {name.partition("/")[0] for name in metrics if name.startswith("magnification_")}
    return [f"{head}/" for head in sorted(heads, key=lambda head: int(head.rpartition("_")[2]))]


def _score_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, counts: int = 0) -> str:
    """Return a table of scores whose first column names the row; the cells are HTML already.

    Scores stand to the left, so that they are in line whether or not an interval follows; the
    first columns after the name may be ``counts``, which stand to the right.
    """
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    style = f"scores after-{counts}-counts" if counts else "scores"
    return _scrollable(
        f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _scrollable(table: str) -> str:
    """Return a table that scrolls by itself where the screen is narrow."""
    return f'<div class="table" tabindex="0">{table}</div>'
