"""``compare --pair``: any two models on the same images, by trial number or by run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

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
from breakhis_search.tracking import keys

_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class ComparedPair:
    """Two models compared, and what must be known to read it.

    Attributes:
        pair: The comparison.
        warnings: What makes it worth less than it looks, in words.
        is_demo: Whether it is about synthetic images.
    """

    pair: Pair
    warnings: list[str]
    is_demo: bool


@dataclass(frozen=True)
class _Model:
    """A run of a trial or a finalist."""

    name: str
    run_id: str
    tags: dict[str, str]


def compare_two(client: Any, studies: Sequence[str], models: tuple[str, str]) -> ComparedPair:
    """Return how two models of one study, or of two, compare on their out-of-fold predictions.

    Args:
        client: An MLflow client.
        studies: One study, or the study of each.
        models: Of each, the trial number (its finalist, or the trial itself where it was none) or
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
    first, second = (
        _find(client, known[name], model)
        for name, model in zip((names[0], names[-1]), models, strict=True)
    )
    pair = compare_pair(
        client, (first.name, first.run_id), (second.name, second.run_id), _objective(first, second)
    )
    both = (first, second)
    is_demo = any(model.tags.get(keys.DEMO) == "true" for model in both)
    return ComparedPair(pair, list(_warnings(*both)), is_demo)


def _objective(first: _Model, second: _Model) -> Objective:
    """What both were selected by."""
    mine, its = (model.tags[keys.OBJECTIVE] for model in (first, second))
    if mine != its:
        raise ComparisonError(
            "models of two objectives do not compare",
            received=f"{first.name}: {mine}, {second.name}: {its}",
            remedy="name two models of the same objective",
        )
    objective: Objective = mine  # type: ignore[assignment]  # written by this program
    return objective


def _warnings(first: _Model, second: _Model) -> Iterator[str]:
    for model in (first, second):
        if model.tags.get(keys.LEAKY) == "true":
            yield f"LEAKY: {model.name} saw patients it is scored on; do not believe its score"
    roles = [model.tags.get(keys.ROLE) for model in (first, second)]
    if set(roles) == {keys.ROLE_FINALIST, keys.ROLE_TRIAL}:
        trial = (first, second)[roles.index(keys.ROLE_TRIAL)]
        yield (
            f"{trial.name} is a trial of the search: one seed, stopped at the epoch that suited the"
            " patients it is scored on, so it looks better than it would as a finalist"
        )


def _find(client: Any, study: dict[Any, Any], model: str) -> _Model:
    """A model by what names it."""
    if _RUN_ID.fullmatch(model):
        return _model_of_run(client, f"run {model[:8]}", model)
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
            run_id = str(found["run_id"].iloc[0])
            return _model_of_run(client, f"{name} {kind} {model}", run_id)
    scored = sorted(set(search_trials_of(board)["trial"].astype(int)))
    raise ComparisonError(
        f"{name} has no complete trial {model}",
        expected=f"one of {', '.join(map(str, scored)) or 'its trials, but none is complete'}",
    )


def _model_of_run(client: Any, name: str, run_id: str) -> _Model:
    try:
        tags = client.get_run(run_id).data.tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        tags = {}
    if keys.OBJECTIVE not in tags:
        raise ComparisonError(
            f"{name} is no run of this program in this store",
            expected="the id of a trial's or a finalist's run (MLflow shows it)",
        )
    return _Model(name, run_id, tags)
