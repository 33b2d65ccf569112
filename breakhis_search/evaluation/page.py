"""One self-contained, interactive HTML page per trial, and the points of its figures as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import count

import pandas as pd

from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.curves import (
    confusion_counts,
    pr_points,
    roc_points,
    undrawable_classes,
)
from breakhis_search.evaluation.document import Section, document, section_html
from breakhis_search.evaluation.figures import (
    confusion_figure,
    count_in_words,
    pr_figure,
    roc_figure,
)
from breakhis_search.evaluation.intervals import Intervals, bootstrap_intervals
from breakhis_search.evaluation.learning_curves import (
    check_history,
    learning_rate_figure,
    loss_figure,
    reading_of,
    score_figure,
)
from breakhis_search.evaluation.magnification_figures import magnification_figure
from breakhis_search.evaluation.metrics import undefined_metrics
from breakhis_search.evaluation.page_tables import (
    cell_heat_table,
    class_table,
    facts_table,
    headline_table,
    level_list,
    own_table,
    recognition_table,
    undefined_list,
)
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel
from breakhis_search.evaluation.style import label_of


def build_trial_page(
    table: pd.DataFrame,
    history: pd.DataFrame,
    *,
    title: str,
    subtitle_facts: Mapping[str, str],
    intervals: Intervals | None = None,
    cells: pd.DataFrame | None = None,
    extra_sections: Sequence[Section] = (),
) -> str:
    """Return the page of a trial: its facts, numbers and figures, each with how to read it.

    Args:
        table: The pooled predictions of the trial, of any number of seeds.
        history: One row per fold and epoch (and ``seed``), see :mod:`.learning_curves`; may be
            empty.
        title: The heading, as plain text.
        subtitle_facts: What to know of the trial, by name, as plain text.
        intervals: What :func:`.intervals.bootstrap_intervals` gave; made here if not given.
        cells: What :func:`.cells.cell_table` gave; made here if not given.
        extra_sections: Further sections; they stand before the learning curves.

    Returns:
        One HTML document of about 5 MB, nearly all of it plotly.js; it works offline.

    Raises:
        DataError: The table is empty or the history cannot be placed by fold and epoch.
    """
    histories = _histories_by_seed(history)
    scores = intervals or bootstrap_intervals(table)
    sections = [
        _score_section(table, scores),
        _class_section(table, scores),
        _recognition_section(scores),
        _cell_section(cell_table(table) if cells is None else cells),
        _roc_section(table, scores),
        _pr_section(table),
        _confusion_section(table),
        _magnification_section(table, scores),
        *extra_sections,
        _learning_section(histories),
    ]
    figure_numbers = count(1)
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>",
            facts_table(subtitle_facts),
            *(section_html(section, figure_numbers) for section in sections),
        ]
    )
    return document(escape(title), body)


def trial_data_files(
    table: pd.DataFrame,
    history: pd.DataFrame,
    *,
    intervals: Intervals | None = None,
    cells: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Return the points of all figures by file name, ready for ``to_csv(index=False)``.

    Args:
        table: The pooled predictions of the trial, of any number of seeds.
        history: One row per fold and epoch.
        intervals: What :func:`.intervals.bootstrap_intervals` gave; made here if not given.
        cells: What :func:`.cells.cell_table` gave; made here if not given.

    Returns:
        ``roc.csv``, ``pr.csv`` and ``confusion.csv`` with both drawn levels, ``cells.csv``
        (magnification by type), ``intervals.csv`` (all metrics) and ``history.csv``.
    """
    return {
        "roc.csv": _of_both_levels(roc_points, table),
        "pr.csv": _of_both_levels(pr_points, table),
        "confusion.csv": _of_both_levels(confusion_counts, table),
        "cells.csv": cell_table(table) if cells is None else cells,
        "intervals.csv": (intervals or bootstrap_intervals(table)).to_frame(),
        "history.csv": history,
    }


def _of_both_levels(
    points_of: Callable[[pd.DataFrame, DrawnLevel], pd.DataFrame], table: pd.DataFrame
) -> pd.DataFrame:
    frames = [points_of(table, level) for level in DRAWN_LEVELS]
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _score_section(table: pd.DataFrame, intervals: Intervals) -> Section:
    images, patients = (count_in_words(table, level) for level in DRAWN_LEVELS)
    return Section(
        "Scores",
        f"{images} of {patients}. {_seeds_sentence(table)} In brackets stands the "
        f"{intervals.level:.0%} interval: where the score may lie for other patients like these "
        "(patients are drawn, not pictures). It does not know that the trial may be the best of "
        "many. A dash means that the score has no value here.",
        tables=level_list() + headline_table(intervals) + undefined_list(undefined_metrics(table)),
    )


def _seeds_sentence(table: pd.DataFrame) -> str:
    seeds = table["seed"].nunique()
    if seeds == 1:
        return "One seed: another one would score differently, which no interval here knows of."
    return f"Every score is the mean over {seeds} seeds, which were scored apart."


def _class_section(table: pd.DataFrame, intervals: Intervals) -> Section:
    return Section(
        "By class",
        "Read a class together with how many patients stand behind it: a score from two or three "
        "patients says little. All but the last column are by image.",
        tables=class_table(table, intervals),
    )


def _recognition_section(intervals: Intervals) -> Section:
    return Section(
        "Spanhol's recognition rates",
        "For comparison with the literature on BreaKHis, which reports these two (Spanhol et al., "
        "IEEE TBME 63(7), 2016). Figures from splits that are not by patient are no comparison.",
        tables=recognition_table(intervals),
    )


def _cell_section(cells: pd.DataFrame) -> Section:
    return Section(
        "By tumour type and magnification",
        "Each cell says, from the top: the share of images that are right (the darker, the more), "
        "of patients that are right in three ways, the patient recognition rate, the mean "
        "probability of the true class, and how many images and patients stand behind them. A "
        "patient with tumours of two types counts in both rows, and once in all types.",
        tables=cell_heat_table(cells),
    )


def _roc_section(table: pd.DataFrame, intervals: Intervals) -> Section:
    binary = is_binary(class_names_of(table))
    if binary:
        what = "Malignant is the positive class (benign would be the mirror image): "
    else:
        what = (
            "Each class stands against all others; macro averages the classes, micro the images: "
        )
    return Section(
        "ROC curves",
        f"{what}up is the share of positives found, right the share of negatives called positive "
        "by mistake, so the nearer to the top left corner, the better; the dotted diagonal is "
        "guessing.",
        [
            roc_figure(table, level, intervals=intervals.known if binary else None)
            for level in DRAWN_LEVELS
        ],
        _absences(table),
    )


def _pr_section(table: pd.DataFrame) -> Section:
    return Section(
        "Precision-recall curves",
        "Of the images given to a class, how many are right (up), while more and more of the class "
        "are found (right); guessing would be a level line at the share of the class.",
        [pr_figure(table, level) for level in DRAWN_LEVELS],
        _absences(table),
    )


def _confusion_section(table: pd.DataFrame) -> Section:
    figures = [
        confusion_figure(table, level, shown)
        for level in DRAWN_LEVELS
        for shown in ("count", "rate")
    ]
    return Section(
        "Confusion",
        "A row is a true class (below its name, how many) and says what it was taken for; the "
        "darker the diagonal, the better. Colours show the percent of the row in all four.",
        [*figures],
        [],
    )


def _magnification_section(table: pd.DataFrame, intervals: Intervals) -> Section:
    classes = int(table["y_true"].nunique())
    binary = is_binary(class_names_of(table))
    metric, label, chance = (
        ("auroc", "AUROC", 0.5)
        if binary
        else ("balanced_accuracy", "balanced accuracy", 1 / classes)
    )
    figure = magnification_figure(
        intervals.values, metric, label=label, chance=chance, intervals=intervals.known
    )
    return Section(
        "By magnification",
        "Each pair of bars scores the images taken at one magnification alone, by image and by "
        "patient; whiskers are the intervals, where there are any; the dotted line is guessing.",
        [figure],
        [] if figure else [f"{label} has no value: every image is of the same class."],
    )


def own_sections(metrics: Sequence[str], values: Mapping[str, float]) -> tuple[Section, ...]:
    """Return the section on metrics of the user's own; none where there are none.

    Args:
        metrics: Each as ``module:function``.
        values: What :func:`.own_metrics.compute_own_metrics` gave, or more.
    """
    if not metrics:
        return ()
    reading = (
        "Functions that the study names beside the metrics of this program, of the same pooled "
        "predictions. They have no intervals, nothing is chosen by them, and what they mean is "
        "for their author to say."
    )
    return (Section("Metrics of your own", reading, tables=own_table(metrics, values)),)


def _histories_by_seed(history: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the checked history of each seed; nothing where nothing was recorded."""
    if history.empty:
        return []
    by_seed = history.groupby("seed", sort=True) if "seed" in history.columns else [(0, history)]
    histories = [part for _, part in by_seed]
    for part in histories:
        check_history(part)
    return histories


def _learning_section(histories: Sequence[pd.DataFrame]) -> Section:
    figures = [
        figure_of(part)
        for part in histories[:1]
        for figure_of in (loss_figure, score_figure, learning_rate_figure)
    ]
    several = f" The first of {len(histories)} seeds is drawn." if len(histories) > 1 else ""
    return Section(
        "Learning curves",
        (reading_of(histories[0]) if histories else "") + several,
        figures,
        [] if any(figures) else ["No losses or scores by epoch were recorded."],
    )


def _absences(table: pd.DataFrame) -> list[str]:
    """Return one sentence per level and reason on the classes that have no curve."""
    sentences = []
    for level in DRAWN_LEVELS:
        by_reason: dict[str, list[str]] = {}
        for name, reason in undrawable_classes(table, level).items():
            by_reason.setdefault(reason, []).append(label_of(name))
        for reason, names in by_reason.items():
            everything = len(names) == len(class_names_of(table))
            whom = "" if everything else f" for {', '.join(names)}"
            sentences.append(f"No curve at {level} level{whom}: {escape(reason)}.")
    return sentences
