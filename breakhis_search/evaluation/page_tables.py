"""The tables of a trial's page, as HTML. Every text that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from breakhis_search.evaluation.predictions import class_names_of
from breakhis_search.evaluation.samples import LEVELS, sample_of
from breakhis_search.evaluation.style import label_of

UNDEFINED = "–"
"""What stands where a metric has no value."""

HEADLINE_LABELS: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "f1_macro": "F1, macro",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "mcc": "Matthews correlation",
    "nll": "negative log-likelihood (lower is better)",
    "recognition_rate": "patient recognition rate (Spanhol)",
    "majority_vote_accuracy": "majority-vote accuracy",
}
"""The rows of the headline table, and how they are called there."""

CLASS_LABELS: dict[str, str] = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
}
"""The columns of the table by class."""


def facts_table(facts: Mapping[str, str]) -> str:
    """Return the facts of a trial as a two-column table."""
    rows = [
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items()
    ]
    return _scrollable(f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>')


def headline_table(metrics: Mapping[str, float]) -> str:
    """Return the headline metrics, images against patients; a dash where there is no value."""
    rows = [
        [label, *(_number(metrics.get(f"{level}/{name}")) for level in LEVELS)]
        for name, label in HEADLINE_LABELS.items()
    ]
    return _table(["metric", "by image", "by patient"], rows)


def class_table(table: pd.DataFrame, metrics: Mapping[str, float]) -> str:
    """Return counts and metrics of every class at image level, and recall by patient."""
    images, patients = (
        pd.Series(sample_of(table, level).y_true).value_counts() for level in LEVELS
    )
    rows = [
        [
            label_of(name),
            f"{images.get(index, 0):,}",
            f"{patients.get(index, 0):,}",
            *(_number(metrics.get(f"image/{metric}_{name}")) for metric in CLASS_LABELS),
            _number(metrics.get(f"patient/recall_{name}")),
        ]
        for index, name in enumerate(class_names_of(table))
    ]
    return _table(
        ["class", "images", "patients", *CLASS_LABELS.values(), "recall by patient"], rows
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


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column names the row; the cells are HTML already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return _scrollable(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _scrollable(table: str) -> str:
    """Return a table that scrolls by itself where the screen is narrow."""
    return f'<div class="table">{table}</div>'
