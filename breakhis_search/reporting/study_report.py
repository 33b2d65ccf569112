"""The report of a study: one HTML page that works offline, and the same in Markdown.

From top to bottom: the answer, how the search went and why it ended, what mattered, the finalists
and who is tied, the winner's scores and mistakes, what it cost, what was decided, how to do it
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import count
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.document import Section, document, section_html
from breakhis_search.evaluation.intervals import Intervals
from breakhis_search.evaluation.learning_curves import loss_figure, score_figure
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective
from breakhis_search.evaluation.page_tables import facts_table
from breakhis_search.reporting import markdown as md
from breakhis_search.reporting.parallel_figure import parallel_figure
from breakhis_search.reporting.search_cost import Cost
from breakhis_search.reporting.search_figures import (
    complete_trials,
    groups_figure,
    history_figure,
    importance_figure,
    importances,
    slice_figures,
)
from breakhis_search.reporting.winner_sections import Winner, winner_sections
from breakhis_search.tracking import keys
from breakhis_search.wording import counted

DEMO_BANNER = "SYNTHETIC DEMO: drawn pictures. It shows the way and means nothing for tissue."
LEAKY_BANNER = "LEAKY: patients are trained on and scored. Do not believe these scores."


_GROUPED = ("architecture", "sampling")
_SIDE_BY_SIDE = (
    "Trials of the search, one seed each; those that took over the result of an equal one count"
    " too. Who was tried more often has had more luck."
)
_SEARCHED = (
    "Names are those of the study file; what has a range or choices was searched. Where the study"
    " file bounds nothing, the bounds are those of the code."
)
_SCORED = (
    " A point is a complete trial, scored out-of-fold by one seed; the line is the best so far,"
    " which rises by luck as well as by merit."
)
_NO_SCORE = (
    " A mark at the foot has no score: it stands there for its number alone. A pruned trial was"
    " stopped in one of its folds, and an epoch of one fold does not compare with a score of all;"
    " a failed one came to no end."
)
_NO_IMPORTANCE = "There are too few trials here, or they differ too little, for an importance."


@dataclass(frozen=True)
class StudyFacts:
    """All that a report is made from.

    Attributes:
        name: Full study name.
        made: When the report is made, UTC.
        objective: What was maximised.
        is_demo: Whether it is about synthetic images.
        is_leaky: Whether its protocol puts patients on two sides.
        facts: What to know of the study, by name, as plain text.
        trials: Of Optuna, all of them.
        board: The leaderboard's rows of its search trials.
        patients: Who the scores of patients rest on, in words; empty where that is not known.
        finalists: The judged finalists, best first: trial, architecture, sampling, score,
            patient_score, each with _low and _high of its interval, difference, low, high, p_holm,
            tied, selected, parameters.
        searched: What was searched and how, by what it is called.
        why_ended: Why the search ended, in words.
        why_selected: Which finalist is selected and why, in words.
        notes: What else must be known to read it: optimism, hard patients, alarms.
        winner: The selected finalist; ``None`` without one.
        histories: Epochs of the best trials, by what they are called.
        cost: What it cost.
        decisions: The decision log of the registered version, in Markdown; empty without one.
        reproduce: How to do it again, one command or fact a line.
    """

    name: str
    made: datetime
    objective: Objective
    is_demo: bool
    is_leaky: bool
    facts: Mapping[str, str]
    trials: Sequence[FrozenTrial]
    board: pd.DataFrame
    patients: str
    finalists: pd.DataFrame
    searched: Mapping[str, str]
    why_ended: str
    why_selected: str
    notes: Sequence[str]
    winner: Winner | None
    histories: Mapping[str, pd.DataFrame]
    cost: Cost
    decisions: str
    reproduce: Sequence[str]

    @property
    def title(self) -> str:
        """The objective as people read it."""
        return OBJECTIVE_TITLES[self.objective]

    @property
    def banners(self) -> list[str]:
        """What has to be known before anything else."""
        return [DEMO_BANNER] * self.is_demo + [LEAKY_BANNER] * self.is_leaky

    @property
    def as_of(self) -> str:
        """Up to when the report knows of anything; a file does not change when a champion does."""
        return (
            f"Made {self.made:%Y-%m-%d %H:%M} UTC. Nothing later is in it, such as a move of the"
            " champion; to make it again:"
        )

    @property
    def make_again(self) -> str:
        """The command that makes the report as of now."""
        return f"python -m breakhis_search report --study {self.name}"

    @property
    def reasons(self) -> dict[int, str]:
        """Why trials of the search have no score, by number, as far as it is known."""
        ended = self.board[self.board["stage"].isin(keys.SEARCH_STAGES)]
        return {int(row["trial"]): row["reason"] for row in ended.to_dict("records")}


def report_html(study: StudyFacts) -> str:
    """Return the page."""
    numbers = count(1)
    banners = "".join(f'<p class="absent"><b>{banner}</b></p>' for banner in study.banners)
    again = f"{escape(study.as_of)} <code>{escape(study.make_again)}</code>"
    head = f'<h1>{escape(study.name)}: report</h1>{banners}<p class="note">{again}</p>'
    parts = [
        facts_table(study.facts),
        *(section_html(section, numbers) for section in _sections(study)),
        _gallery(study),
        *(section_html(section, numbers) for section in _ending(study)),
    ]
    contents, body = _with_contents("".join(parts))
    return document(f"{escape(study.name)}: report", head + contents + body)


def _with_contents(body: str) -> tuple[str, str]:
    """Return links to all sections of a page, and the page with what they lead to."""
    headings = re.findall(r"<h2>(.*?)</h2>", body)
    links = "".join(f'<a href="#part-{n}">{h}</a> ' for n, h in enumerate(headings, 1))
    numbers = count(1)
    marked = re.sub("<h2>", lambda _: f'<h2 id="part-{next(numbers)}">', body)
    return f'<nav aria-label="Contents">{links}</nav>', marked


def _sections(study: StudyFacts) -> Iterator[Section]:
    yield _answer(study)
    if study.searched:
        yield _searched(study)
    yield _history(study)
    yield from _what_mattered(study)
    yield _side_by_side(study)
    yield from _learning(study)
    if study.winner:
        yield from winner_sections(study.winner, study.objective)


def _answer(study: StudyFacts) -> Section:
    sentences = [study.why_selected, *study.notes]
    return Section(
        "The answer",
        "<ul>"
        + "".join(f"<li>{escape(md.plain(sentence))}</li>" for sentence in sentences if sentence)
        + "</ul>Finalists are trained on several seeds for epochs fixed beforehand, and only they"
        " are ranked; <em>tied</em> is who is not shown to be worse than the best and within the"
        " study's margin of it. In brackets 95 % intervals over patients. " + escape(_rest(study)),
        tables=_html_table(*_finalist_rows(study)),
    )


def _rest(study: StudyFacts) -> str:
    return f"Scores of patients rest on {study.patients}." if study.patients else ""


def _searched(study: StudyFacts) -> Section:
    return Section(
        "What was searched",
        _SEARCHED,
        tables=facts_table(study.searched),
    )


def _finalist_rows(study: StudyFacts) -> tuple[list[str], list[list[str]]]:
    head = ["trial", "architecture", "sampling", f"{study.title}, images", "patients"]
    head += ["to the best", "p (Holm)", "tied", "parameters"]
    rows = [
        [
            str(int(row["trial"])),
            str(row["architecture"]),
            str(row["sampling"]),
            _scored(row, "score"),
            _scored(row, "patient_score"),
            _difference(row),
            _number(row.get("p_holm"), 3),
            "selected" if row.get("selected") else "tied" if row.get("tied") else "no",
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] == row["parameters"] else "",
        ]
        for row in study.finalists.to_dict("records")
    ]
    return head, rows


def _scored(row: Mapping[Any, Any], name: str) -> str:
    """A score with its interval, where patients allow one."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    told = _number(row[name])
    return told if low is None or low != low else f"{told} [{low:.3f}, {high:.3f}]"  # noqa: PLR0124


def _difference(row: Mapping[Any, Any]) -> str:
    difference, low, high = (row.get(name) for name in ("difference", "low", "high"))
    if difference is None or difference != difference or difference == 0:  # noqa: PLR0124 - NaN
        return ""
    told = f"{difference:+.3f}"
    return told if low is None or low != low else f"{told} [{low:+.3f}, {high:+.3f}]"  # noqa: PLR0124


def _number(value: Any, digits: int = 4) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - NaN


def _history(study: StudyFacts) -> Section:
    figure = history_figure(study.trials, study.title, study.reasons)
    unscored = any(t.state in (TrialState.PRUNED, TrialState.FAIL) for t in study.trials)
    caption = _SCORED + (_NO_SCORE if unscored else "") if figure else ""
    return Section(
        "How the search went",
        escape(study.why_ended) + caption,
        [figure],
        ["No trial is complete."] if study.trials and not figure else [],
        tables=_html_table(*_state_rows(study)),
    )


def _state_rows(study: StudyFacts) -> tuple[list[str], list[list[str]]]:
    states = study.board.groupby(["stage", "state"], sort=True).size().reset_index(name="trials")
    rows = [[str(value) for value in row] for row in states.itertuples(index=False)]
    return ["stage", "state", "trials"], rows


def _what_mattered(study: StudyFacts) -> Iterator[Section]:
    found = importances(study.trials)
    yield Section(
        "What mattered",
        "How much each hyperparameter tells the better half of"
        f" {counted(len(complete_trials(study.trials)), 'complete trial')} from the rest. It speaks"
        " of the values that were tried; of few trials it is mostly chance.",
        [importance_figure(found)],
        [] if found else [_NO_IMPORTANCE],
    )
    parallel = parallel_figure(study.trials, study.title)
    if parallel is not None:
        yield Section(
            "What was tried",
            "Each line is a complete trial, the bluer the better; the best lie on top.",
            [parallel],
            is_wide=True,
        )
    if found:
        yield Section(
            "One hyperparameter at a time",
            "The score against each of the most important ones; what else a trial had differs.",
            slice_figures(study.trials, list(found), study.title),
        )


def _side_by_side(study: StudyFacts) -> Section:
    figures = [groups_figure(study.board, column, study.title) for column in _GROUPED]
    return Section(
        "Architectures and sampling strategies side by side",
        _SIDE_BY_SIDE,
        figures,
        [] if any(figures) else ["Only one architecture and one sampling strategy were tried."],
        tables="".join(_html_table(*_group_rows(study, column)) for column in _GROUPED),
    )


def _group_rows(study: StudyFacts, column: str) -> tuple[list[str], list[list[str]]]:
    """Complete trials by architecture or strategy, each stage by itself."""
    scored = study.board[study.board["score"].notna()]
    rows = [
        [str(name), str(stage), str(len(scores)), _number(scores.max()), _number(scores.median())]
        for (name, stage), scores in scored.groupby([column, "stage"], sort=True)["score"]
    ]
    return [column, "stage", "trials", f"best {study.title}", "median"], rows


def _learning(study: StudyFacts) -> Iterator[Section]:
    for name, history in study.histories.items():
        figures = [loss_figure(history), score_figure(history)]
        if any(figures):
            yield Section(f"Learning curves of {escape(name)}", "One colour per fold.", figures)


def _gallery(study: StudyFacts) -> str:
    if study.winner is None or not study.winner.gallery:
        return ""
    return f"<h2>The winner: most confident mistakes</h2>{study.winner.gallery}"


def _ending(study: StudyFacts) -> Iterator[Section]:
    items = "".join(f"<li>{escape(line)}</li>" for line in study.cost.in_words())
    yield Section("What it cost", "Seconds of the devices.", tables=f"<ul>{items}</ul>")
    if study.decisions:
        yield Section(
            "What was decided",
            "Moves of the champion, openings of the sealed test, answers of the gate.",
            tables=_from_markdown(study.decisions),
        )
    lines = escape("\n".join(study.reproduce))
    yield Section("How to do it again", "In the folder of the study.", tables=f"<pre>{lines}</pre>")


def _from_markdown(text: str) -> str:
    """The decision log as HTML: its tables, and its other lines as paragraphs."""
    parts: list[str] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = md.plain_cells(line)
            if any(cell.strip("-: ") for cell in cells):
                rows.append(cells)
            continue
        if rows:
            parts.append(_html_table(rows[0], rows[1:]))
            rows = []
        if line.startswith("#"):
            parts.append(f"<h3>{escape(md.plain(line.lstrip('# ')))}</h3>")
        elif line.strip():
            parts.append(f"<p>{escape(md.plain(line))}</p>")
    return "".join(parts)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if not i else f"<td>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


# --- the same in Markdown -------------------------------------------------------------------------


def report_markdown(study: StudyFacts) -> str:
    """Return the report without its figures, for a terminal, a repository or a search."""
    found = importances(study.trials)
    parts = [
        f"# {md.escape(study.name)}: report",
        *(f"**{banner}**" for banner in study.banners),
        f"{md.escape(study.as_of)} {md.code(study.make_again)}",
        md.table(["", ""], [[md.escape(k), md.escape(v)] for k, v in study.facts.items()]),
        "## The answer",
        md.escape(study.why_selected),
        md.bullets([md.escape(note) for note in study.notes]),
        _md_table(*_finalist_rows(study)) if not study.finalists.empty else "",
        md.escape(_rest(study)),
        "## What was searched" if study.searched else "",
        _SEARCHED if study.searched else "",
        _md_table(["setting", "value"], [list(row) for row in study.searched.items()])
        if study.searched
        else "",
        "## How the search went",
        md.escape(study.why_ended),
        _md_table(*_state_rows(study)),
        "## What mattered",
        md.bullets([f"{md.code(name)} {value:.2f}" for name, value in found.items()])
        or _NO_IMPORTANCE,
        "## Architectures and sampling strategies side by side",
        _SIDE_BY_SIDE,
        *(_md_table(*_group_rows(study, column)) for column in _GROUPED),
        *_winner_in_markdown(study),
        "## What it cost",
        md.bullets([md.escape(line) for line in study.cost.in_words()]),
        "## How to do it again",
        "```\n" + "\n".join(study.reproduce) + "\n```",
        study.decisions,
    ]
    return md.paragraphs(*parts) + "\n"


def _winner_in_markdown(study: StudyFacts) -> Iterator[str]:
    if study.winner is None:
        return
    intervals = study.winner.intervals
    yield "## The winner: scores"
    rows = [
        [md.code(name), f"{value:.3f}", _interval(intervals, name)]
        for name, value in intervals.values.items()
        if name.count("/") == 1 and name.partition("/")[0] in ("image", "patient")
    ]
    yield md.table(["metric", "value", "95 % interval"], rows)
    yield "## The winner: by tumour type and magnification"
    cells = cell_table(study.winner.table)
    columns = ["type", "magnification", "images", "patients"]
    shares = ["image_accuracy", "patient_accuracy"]
    heads = [*columns, "images right", "patients right"]
    yield md.table(
        heads,
        [
            [*(md.escape(str(row[c])) for c in columns), *(f"{row[c]:.2f}" for c in shares)]
            for row in cells.to_dict("records")
        ],
    )


def _interval(intervals: Intervals, name: str) -> str:
    interval = intervals.known.get(name)
    return md.escape(interval) if interval else md.NOTHING


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return md.table(head, [[md.escape(cell) or md.NOTHING for cell in row] for row in rows])
