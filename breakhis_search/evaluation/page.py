"""One self-contained, interactive HTML page per trial, and the points of its figures as tables.

plotly.js is embedded once, the page asks the network for nothing (its content security policy
forbids it), and the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import count
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.curves import (
    confusion_counts,
    pr_points,
    roc_points,
    undrawable_classes,
)
from breakhis_search.evaluation.figures import (
    confusion_figure,
    count_in_words,
    magnification_figure,
    pr_figure,
    roc_figure,
)
from breakhis_search.evaluation.intervals import Intervals, bootstrap_intervals
from breakhis_search.evaluation.learning_curves import (
    check_history,
    learning_rate_figure,
    loss_figure,
    score_figure,
)
from breakhis_search.evaluation.metrics import undefined_metrics
from breakhis_search.evaluation.page_tables import (
    cell_heat_table,
    class_table,
    facts_table,
    headline_table,
    level_list,
    recognition_table,
    undefined_list,
)
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.samples import DRAWN_LEVELS, DrawnLevel
from breakhis_search.evaluation.style import FONT_FAMILY, REFERENCE_COLOR, TEXT_COLOR, label_of

_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1240px; padding: 16px; background: #fff; color: {TEXT_COLOR};
  font: 15px/1.5 {FONT_FAMILY}; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .3rem; border-top: 1px solid #ddd; padding-top: 1rem; }}
p {{ margin: .3rem 0 .8rem; max-width: 75ch; }}
.note {{ color: #595959; }}
.absent {{ border-left: 3px solid {REFERENCE_COLOR}; padding-left: .7rem; }}
.table {{ overflow-x: auto; margin: .5rem 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e5e5e5; text-align: right;
  vertical-align: top; }}
th:first-child, .facts td {{ text-align: left; }}
thead th {{ vertical-align: bottom; }}
tbody th {{ font-weight: 400; }}
.facts th {{ color: #595959; white-space: nowrap; }}
.facts td {{ overflow-wrap: anywhere; }}
code {{ overflow-wrap: anywhere; font-size: .85em; }}
.interval {{ color: #595959; white-space: nowrap; font-size: .85em; }}
.level {{ font-weight: 400; color: #595959; }}
.levels {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; max-width: 105ch;
  margin: .5rem 0 1rem; }}
.levels dt {{ font-family: ui-monospace, monospace; font-size: .85em; line-height: 1.8; }}
.levels dd {{ margin: 0; }}
@media (max-width: 640px) {{ .levels {{ display: block; }} .levels dd {{ margin: 0 0 .5rem; }} }}
.scores th, .scores td {{ text-align: left; }}
.after-2-counts :is(th, td):is(:nth-child(2), :nth-child(3)) {{ text-align: right; }}
sup {{ line-height: 0; }}
:is(.scores, .heat) th:first-child {{ position: sticky; left: 0; background: #fff; }}
.heat td {{ padding: .3rem .7rem; border: 2px solid #fff; min-width: 7rem; }}
.heat thead th {{ padding-right: .7rem; }}
.heat b {{ display: block; font-weight: 600; line-height: 1.5rem; }}
.heat i {{ display: block; font-style: normal; font-size: .85rem; line-height: 1.15rem; }}
.heat small {{ display: block; color: #333; white-space: nowrap; font-size: .75rem;
  line-height: 1rem; }}
.heat tbody th {{ padding: .3rem .3rem .3rem 0; border: 0; }}
.heat tbody th div {{ display: flex; justify-content: space-between; gap: 1.5rem; }}
.heat .legend {{ text-align: right; white-space: nowrap; color: #595959; font-size: .85rem; }}
.heat .legend b {{ font-weight: 400; }}
@media (max-width: 640px) {{ .heat .legend {{ display: none; }} }}
.figures {{ display: grid; gap: 16px 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }}
.figures.single {{ grid-template-columns: 100%; }}
.figures > div {{ min-width: 0; }}
"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


# The scroll bar may appear after the first figures were drawn, and takes some of their width.
_RESIZE = (
    "addEventListener('load', () => document.querySelectorAll('.plotly-graph-div')"
    ".forEach(figure => Plotly.Plots.resize(figure)));"
)


class Section(NamedTuple):
    """A part of the page. All texts are HTML: what comes from outside must be escaped already.

    Attributes:
        heading: Its heading.
        reading: How to read what is shown; left out where nothing is.
        figures: The figures, ``None`` where one cannot be drawn.
        absences: One sentence on each thing that cannot be shown, and why.
        tables: Tables as HTML, to stand above the figures.
    """

    heading: str
    reading: str
    figures: Sequence[go.Figure | None] = ()
    absences: Sequence[str] = ()
    tables: str = ""


def build_trial_page(
    table: pd.DataFrame,
    history: pd.DataFrame,
    *,
    title: str,
    subtitle_facts: Mapping[str, str],
    intervals: Intervals | None = None,
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
        _cell_section(table),
        _roc_section(table),
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
            *(_section_html(section, figure_numbers) for section in sections),
        ]
    )
    return _document(escape(title), body)


def trial_data_files(
    table: pd.DataFrame, history: pd.DataFrame, *, intervals: Intervals | None = None
) -> dict[str, pd.DataFrame]:
    """Return the points of all figures by file name, ready for ``to_csv(index=False)``.

    Args:
        table: The pooled predictions of the trial, of any number of seeds.
        history: One row per fold and epoch.
        intervals: What :func:`.intervals.bootstrap_intervals` gave; made here if not given.

    Returns:
        ``roc.csv``, ``pr.csv`` and ``confusion.csv`` with both drawn levels, ``cells.csv``
        (magnification by type), ``intervals.csv`` (all metrics) and ``history.csv``.
    """
    return {
        "roc.csv": _of_both_levels(roc_points, table),
        "pr.csv": _of_both_levels(pr_points, table),
        "confusion.csv": _of_both_levels(confusion_counts, table),
        "cells.csv": cell_table(table),
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


def _cell_section(table: pd.DataFrame) -> Section:
    return Section(
        "By tumour type and magnification",
        "Each cell says, from the top: the share of images that are right (the darker, the more), "
        "the patient recognition rate, the mean probability of the true class, and how many images "
        "and patients stand behind them.",
        tables=cell_heat_table(cell_table(table)),
    )


def _roc_section(table: pd.DataFrame) -> Section:
    if is_binary(class_names_of(table)):
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
        [roc_figure(table, level) for level in DRAWN_LEVELS],
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
        "One colour per fold; the star is the fold's best epoch. Validation loss that rises while "
        f"training loss falls is overfitting.{several}",
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


def _section_html(section: Section, numbers: Iterator[int]) -> str:
    figures = [
        _figure_html(figure, f"figure-{next(numbers)}") for figure in section.figures if figure
    ]
    reading = f"<p>{section.reading}</p>" if figures or section.tables else ""
    absences = "".join(f'<p class="absent">{sentence}</p>' for sentence in section.absences)
    layout = "figures single" if len(figures) == 1 else "figures"
    drawings = f'<div class="{layout}">{"".join(figures)}</div>' if figures else ""
    return f"<h2>{section.heading}</h2>{reading}{absences}{section.tables}{drawings}"


def _figure_html(figure: go.Figure, identifier: str) -> str:
    """Return a figure without plotly.js; its id is fixed so that equal pages are equal bytes."""
    config = {
        "responsive": True,
        "displaylogo": False,
        # Few buttons, so that they never hide a title; dragging zooms without one.
        "modeBarButtons": [["toImage", "resetScale2d"]],
        "toImageButtonOptions": {"scale": 2, "filename": identifier},
    }
    html = plotly.io.to_html(
        figure, config=config, include_plotlyjs=False, full_html=False, div_id=identifier
    )
    return str(html)


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript>"
        f"{body}<script>{_RESIZE}</script></body></html>\n"
    )
