"""``compare`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from breakhis_search.cli import console
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = ("#", "score", "patient", "NLL", "parameters", "seconds", "trial")


def compare_command(studies: Sequence[str], *, top: int, as_json: bool) -> None:
    """Print the leaderboard of the studies."""
    from breakhis_search.comparison.leaderboard import (
        best_by,
        different_splits,
        explain_first,
        list_studies,
        read_leaderboard,
        resolve_studies,
        score_by_magnification,
        shared_names,
    )
    from breakhis_search.tracking.store import open_store, tracking_errors

    settings = read_settings()
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        names = resolve_studies(client, studies)
        board = read_leaderboard(client, names)
        objectives = list_studies(client).drop_duplicates("study").set_index("study")["objective"]
        objective = str(objectives[names[0]])
        why = explain_first(board, objective)
        first = board[board["state"] == "complete"].head(1)
        scores = [score_by_magnification(client, run, objective) for run in first["run_id"]]
    if as_json:
        winners = {by: _records(best_by(board, by)) for by in ("architecture", "sampling")}
        answer = {"studies": names, "why": why, "trials": _records(board), "best": winners}
        answer["by_magnification"] = _records(scores[0]) if scores else []
        console.print_json(answer)
        return
    print_leaderboard(board, objective, top=top, title=" and ".join(names))
    for column in ("architecture", "sampling"):
        best = best_by(board, column)
        print_leaderboard(best, objective, top=len(best), title=f"Best of every {column}")
    for frame in scores:
        print_by_magnification(frame)
    console.out.print(why, soft_wrap=True)
    for name in shared_names(board):
        console.out.print(f"[yellow]Several studies in this store are called {name}.[/]")
    if different_splits(board):
        console.out.print(
            "[yellow]These studies split differently: their scores do not compare.[/]"
        )


def print_by_magnification(scores: pd.DataFrame) -> None:
    """Print the first trial's objective at every magnification."""
    rows = [[f"{r['magnification']}X", r["image"], r["patient"]] for r in _records(scores)]
    columns = ["magnification", "images", "patients"]
    console.print_table("First trial by magnification", columns, rows, right=columns[1:])


def print_leaderboard(
    board: pd.DataFrame, objective: str, *, top: int, title: str = "Leaderboard"
) -> None:
    """Print ranked trials, and how many more there are."""
    shown = board.head(top)
    several = board["study"].nunique() > 1
    columns = ["#", *(["study"] if several else []), "trial", "architecture", "sampling", "score"]
    columns += ["patient", "NLL", "parameters", "seconds", "state"]
    rows = [
        [
            row["rank"],
            *([row["study"]] if several else []),
            row["trial"],
            row["architecture"],
            row["sampling"],
            row["score"],
            row["patient_score"],
            row["nll"],
            _whole(row["parameters"]),
            _whole(row["seconds"]),
            row["state"],
        ]
        for row in shown.to_dict("records")
    ]
    notes = [f"score: pooled out-of-fold {objective} of images; patient: the same over patients"]
    if len(board) > top:
        notes.append(f"{len(board) - top} more trials (--top)")
    if bool(board["leaky"].any()):
        notes.append("LEAKY: patients stand on both sides; these scores are not to be believed")
    console.print_table(title, columns, rows, right=_NUMBERS, notes=notes)


def _whole(number: float | None) -> str | None:
    return None if number is None or number != number else f"{number:,.0f}"  # noqa: PLR0124 - NaN


def _records(board: pd.DataFrame) -> list[dict[str, object]]:
    clean = board.astype(object).where(board.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in clean.to_dict("records")]
