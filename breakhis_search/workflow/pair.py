"""``compare --pair``: any two models on the same images, by trial number or by run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from breakhis_search.comparison.contest import Pair, compare_pair
from breakhis_search.comparison.leaderboard import (
    finalists_of,
    list_studies,
    read_leaderboard,
    resolve_studies,
    search_trials_of,
)
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import Objective

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def compare_two(client: Any, studies: Sequence[str], pair: tuple[str, str]) -> tuple[Pair, bool]:
    """Return how two models of one study, or of two, compare, and whether they are of the demo.

    Args:
        client: An MLflow client.
        studies: One study, or the study of each.
        pair: Of each, the trial number (its finalist, or the trial itself where it was none) or
            the id of a run.

    Raises:
        ComparisonError: There are more than two studies, no such model, or the two do not compare.
    """
    if len(studies) > 2:
        raise ComparisonError(
            "--pair compares two models", expected="one or two --study", received=f"{len(studies)}"
        )
    names = resolve_studies(client, studies)
    known = {s["study"]: s for s in reversed(list_studies(client).to_dict("records"))}
    objectives: list[Objective] = [known[name]["objective"] for name in names]
    if len(set(objectives)) > 1:
        raise ComparisonError(
            "studies of two objectives do not compare",
            received=" and ".join(objectives),
            remedy="name two models of the same objective",
        )
    first, second = (
        _find(client, known[name], model)
        for name, model in zip((names[0], names[-1]), pair, strict=True)
    )
    is_demo = any(known[name]["demo"] for name in names)
    return compare_pair(client, first, second, objectives[0]), is_demo


def _find(client: Any, study: dict[Any, Any], model: str) -> tuple[str, str]:
    """Name and run of a model."""
    if _RUN_ID.fullmatch(model):
        return f"run {model[:8]}", model
    if not model.isdecimal():
        raise ComparisonError(
            f"{model!r} names no model",
            expected="a trial number, or the 32 hexadecimal digits of a run",
        )
    name = study["study"]
    board = read_leaderboard(client, [name], study_uid=study["study_uid"])
    for kind, rows in (("finalist", finalists_of(board)), ("trial", search_trials_of(board))):
        found = rows[rows["trial"] == int(model)]
        if not found.empty:
            return f"{name} {kind} {model}", str(found["run_id"].iloc[0])
    scored = sorted(set(search_trials_of(board)["trial"].astype(int)))
    raise ComparisonError(
        f"{name} has no complete trial {model}",
        expected=f"one of {', '.join(map(str, scored)) or 'its trials, but none is complete'}",
    )
