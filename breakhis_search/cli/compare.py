"""``compare`` in the terminal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from breakhis_search.cli import console
from breakhis_search.cli.console import READING
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

    from breakhis_search.evaluation.metrics import Objective
    from breakhis_search.workflow.comparison import JudgedStudy

_NUMBERS = ("#", "trial", "score", "patient", "NLL", "parameters", "seconds", "p", "to the best")


def compare_command(studies: Sequence[str], *, top: int, as_json: bool) -> None:
    """Print the finalists of the studies, who is selected and why."""
    settings = read_settings()
    with console.at_work(READING):
        from breakhis_search.tracking.store import read_store, tracking_errors
        from breakhis_search.workflow.comparison import compare_studies

        client = read_store(settings)
        with tracking_errors(settings.tracking_uri):
            comparison = compare_studies(client, studies)
    if as_json:
        answer = {
            "studies": [_as_json(study) for study in comparison.studies],
            "verdicts": comparison.verdicts,
            "warnings": comparison.warnings,
        }
        console.print_json(answer)
        return
    for study in comparison.studies:
        print_study(study, top=top)
        for column, best in _telling(study):
            print_trials(study, best, top=len(best), title=f"Best of every {column}")
    for sentence in comparison.verdicts:
        console.out.print(sentence, soft_wrap=True)
    for warning in comparison.warnings:
        console.out.print(f"[yellow]{warning}[/]")


def pair_command(studies: Sequence[str], models: tuple[str, str], *, as_json: bool) -> None:
    """Print which of two models is better, if that can be said."""
    settings = read_settings()
    with console.at_work(READING):
        from breakhis_search.tracking.store import read_store, tracking_errors
        from breakhis_search.workflow.pair import compare_two

        client = read_store(settings)
        with tracking_errors(settings.tracking_uri):
            compared = compare_two(client, studies, models)
    found = compared.pair
    if as_json:
        console.print_json(
            {
                "models": list(found.names),
                "test": asdict(found.test),
                "interval": asdict(found.interval),
                "verdict": found.verdict,
                "warnings": compared.warnings,
                "demo": compared.is_demo,
            }
        )
        return
    if compared.is_demo:
        console.print_demo_banner()
    console.out.print(f"[bold]{escape(found.verdict)}[/]", soft_wrap=True)
    swaps = f"{'all' if found.test.exact else 'random'} {found.test.permutations:,} swaps"
    console.say(
        f"patient-swap test of {found.test.n_patients} patients, {swaps}, two-sided; the interval"
        " is a paired bootstrap over patients"
    )
    console.say("one pair, with no correction for others that were looked at before")
    for warning in compared.warnings:
        console.out.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)


def _telling(study: JudgedStudy) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of best trials that say more than the table of all trials."""
    scored = int(study.trials["score"].notna().sum())
    for column, best in study.best_by.items():
        if 1 < len(best) < scored:
            yield column, best


def print_study(study: JudgedStudy, *, top: int) -> None:
    """Print finalists, search trials, magnifications, the choice and its optimism."""
    if study.is_demo:
        console.print_demo_banner()
    print_finalists(study)
    title = f"{study.name}: trials of the search (one seed each, not ranked)"
    print_trials(study, study.trials, top=top, title=title)
    print_own_metrics(study, top=top)
    print_by_magnification(study)
    print_verdict(study)


def print_verdict(study: JudgedStudy) -> None:
    """Print which finalist is selected and why, and what must be known with it."""
    console.out.print(f"[bold]{study.why}[/]", soft_wrap=True)
    if study.optimism:
        console.say(f"Best of the search by one seed: {study.optimism}.")
    if study.hard_patients:
        console.say(f"Patients: {study.hard_patients}")
    for version in study.registered:
        if version.remarks:
            console.out.print(f"[bold red]{escape(version.in_words())}[/]", soft_wrap=True)
    if study.leak_alarm:
        console.out.print(f"[bold red]LEAK ALARM:[/] {study.leak_alarm}", soft_wrap=True)


def print_finalists(study: JudgedStudy) -> None:
    """Print the ranked finalists with the test of each against the best."""
    if study.finalists.empty:
        return
    columns = ["#", "trial", "architecture", "sampling", "score", "patient", "to the best", "p"]
    columns += ["tied", "parameters"]
    rows = [
        [
            row["rank"],
            row["trial"],
            row["architecture"],
            row["sampling"],
            row["score"],
            row["patient_score"],
            _difference(row),
            _p(row["p_holm"]),
            "selected" if row["selected"] else "tied" if row["tied"] else "no",
            _millions(row["parameters"]),
        ]
        for row in study.finalists.to_dict("records")
    ]
    others = study.finalists[study.finalists["difference"] != 0]
    is_bounded = others.empty or bool(others["low"].notna().any())
    interval = "with its 95 % interval" if is_bounded else "too few patients for an interval"
    note = (
        f"score: pooled out-of-fold {_title(study.objective)} of images, mean of the seeds;"
        f" patient: the same over {study.patients_in_words}; to the best: {interval};"
        " p: that the best is no better (patient-swap test, Holm)"
    )
    console.print_table(
        f"{study.name}: finalists",
        columns,
        rows,
        right=_NUMBERS,
        notes=[note],
        spare=("parameters", "sampling", "patient", "#"),
    )


def print_trials(study: JudgedStudy, board: pd.DataFrame, *, top: int, title: str) -> None:
    """Print trials of the search of a study, and how many more there are."""
    columns = ["trial", "architecture", "sampling", "score", "patient", "NLL", "parameters"]
    columns += ["seconds", "state"]
    staged = len(set(board["stage"]) - {""}) > 1
    columns[1:1] = ["stage"] * staged
    rows = [
        [
            row["trial"],
            *[row["stage"]] * staged,
            row["architecture"],
            row["sampling"],
            row["score"],
            row["patient_score"],
            row["nll"],
            _millions(row["parameters"]),
            _whole(row["seconds"]),
            row["state"],
        ]
        for row in board.head(top).to_dict("records")
    ]
    score = f"pooled out-of-fold {_title(study.objective)} of images"
    notes = [f"score: {score}; patient: the same over {study.patients_in_words}"]
    if len(board) > top:
        notes.append(f"{len(board) - top} more trials (--top)")
    if bool(board["leaky"].any()):
        notes.append("LEAKY: patients stand on both sides; these scores are not to be believed")
    spare = ("parameters", "seconds", "NLL", "stage", "patient")
    console.print_table(title, columns, rows, right=_NUMBERS, notes=notes, spare=spare)


def print_own_metrics(study: JudgedStudy, *, top: int) -> None:
    """Print the metrics of the user's own, of the finalists and of the best trials."""
    from breakhis_search.evaluation.own_metrics import OWN

    names = [name for name in study.trials.columns if name.startswith(OWN)]
    if not names:
        return
    boards = {"finalist": study.finalists, "search": study.trials.head(top)}
    rows = [
        [row["trial"], kind, *(row[name] for name in names)]
        for kind, board in boards.items()
        for row in board.to_dict("records")
    ]
    titles = [name.removeprefix(OWN) for name in names]
    console.print_table(
        f"{study.name}: metrics of your own",
        ["trial", "of", *titles],
        rows,
        right=["trial", *titles],
        notes=["pooled out-of-fold, of images or patients; of finalists the mean of the seeds"],
    )


def print_by_magnification(study: JudgedStudy) -> None:
    """Print the objective of the selected finalist at every magnification."""
    if study.by_magnification.empty:
        return
    records = _records(study.by_magnification)
    rows = [
        [
            f"{r['magnification']}X",
            _count(r["images"]),
            r["image"],
            _count(r["patients"]),
            r["patient"],
        ]
        for r in records
    ]
    score = _title(study.objective)
    columns = ["magnification", "images", f"{score}, images", "patients", f"{score}, patients"]
    whose = "Selected finalist" if study.selection else "Best trial"
    title = f"{whose}, {score} by magnification"
    note = "a score of few patients is theirs; `card` has the intervals, where there can be any"
    console.print_table(title, columns, rows, right=columns[1:], notes=[note])


def _as_json(study: JudgedStudy) -> dict[str, object]:
    return {
        "study": study.name,
        "demo": study.is_demo,
        "objective": study.objective,
        "why": study.why,
        "selected": study.selection.selected if study.selection else None,
        "tied": list(study.selection.tied) if study.selection else [],
        "optimism": study.optimism,
        "hard_patients": study.hard_patients,
        "leak_alarm": study.leak_alarm or None,
        "registered": [asdict(version) for version in study.registered],
        "finalists": _records(study.finalists),
        "trials": _records(study.trials),
        "best": {by: _records(board) for by, board in study.best_by.items()},
        "by_magnification": _records(study.by_magnification),
        "patients": dict(study.patients),
    }


def _title(objective: Objective) -> str:
    from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES

    return OBJECTIVE_TITLES[objective]


def _difference(row: dict[Hashable, Any]) -> str | None:
    """Distance to the best with its 95 % interval, where there are patients enough for one."""
    if row["difference"] == 0:
        return None
    low, high = row["low"], row["high"]
    interval = f" [{low:+.3f}, {high:+.3f}]" if low == low else ""  # noqa: PLR0124 - NaN
    return f"{row['difference']:+.3f}{interval}"


def _p(value: float) -> str | None:
    return f"{value:.3f}" if value == value else None  # noqa: PLR0124 - NaN


def _millions(parameters: float | None) -> str | None:
    if parameters is None or parameters != parameters:  # noqa: PLR0124 - NaN
        return None
    return f"{parameters / 1e6:.2f} M"


def _whole(number: float | None) -> str | None:
    return None if number is None or number != number else f"{number:,.0f}"  # noqa: PLR0124 - NaN


def _count(number: Any) -> str | None:
    """A number of images or patients, where it is known."""
    return None if number is None else f"{number:,.0f}"


def _records(board: pd.DataFrame) -> list[dict[str, object]]:
    clean = board.astype(object).where(board.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in clean.to_dict("records")]
