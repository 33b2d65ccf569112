"""A model by what a user calls it: the number of its trial, or the id of its run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from mlflow.exceptions import MlflowException

from breakhis_search.comparison.leaderboard import (
    finalists_of,
    find_studies,
    read_leaderboard,
    search_trials_of,
)
from breakhis_search.errors import ComparisonError
from breakhis_search.tracking import keys

Kind = Literal["finalist", "trial"]

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_ROWS_OF: dict[Kind, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "finalist": finalists_of,
    "trial": search_trials_of,
}


@dataclass(frozen=True)
class NamedModel:
    """A run of a trial or a finalist.

    Attributes:
        name: What it is called in sentences.
        run_id: Of its MLflow run.
        tags: Of that run.
    """

    name: str
    run_id: str
    tags: dict[str, str]


def find_model(
    client: Any, study: str, model: str, *, kinds: tuple[Kind, ...] = ("finalist", "trial")
) -> NamedModel:
    """Return a model of a study.

    Args:
        client: An MLflow client.
        study: Name of the study, with or without its version.
        model: A trial number, or the id of a run.
        kinds: What a number may mean; the first that there is.

    Raises:
        TrackingError: There is no such study.
        ComparisonError: There is no such model.
    """
    [known] = find_studies(client, [study])
    name = known["study"]
    if _RUN_ID.fullmatch(model):
        return _model_of_run(client, f"run {model[:8]}", model)
    if not model.isdecimal():
        raise ComparisonError(
            f"{model!r} names no model",
            expected="a trial number, or the 32 hexadecimal digits of a run",
        )
    board = read_leaderboard(client, [name], study_uid=known["study_uid"])
    for kind in kinds:
        rows = _ROWS_OF[kind](board)
        found = rows[rows["trial"] == int(model)]
        if not found.empty:
            run_id = str(found["run_id"].iloc[0])
            return _model_of_run(client, f"{name} {kind} {model}", run_id)
    raise _not_complete(client, name, int(model), board)


_ENDS = {
    "pruned": "was pruned",
    "failed": "failed",
    "interrupted": "was cut off (the same `run` command goes on with it)",
    "running": "has not ended",
}


def _not_complete(client: Any, study: str, number: int, board: pd.DataFrame) -> ComparisonError:
    """The error that says what became of a trial without predictions, and names those with."""
    complete = sorted(set(search_trials_of(board)["trial"].astype(int)))
    which = board[(board["trial"] == number) & board["stage"].isin(keys.SEARCH_STAGES)]
    what, remedy = f"{study} has no trial {number}", "name one of them"
    if not which.empty:
        row = which.iloc[0]
        if row["state"] == "reused":
            same = client.get_run(row["run_id"]).data.tags.get(keys.SAME_AS)
            what = f"trial {number} of {study} was not trained: it has the values of trial {same}"
            remedy = f"name trial {same}, whose result is its result"
        else:
            why = f" ({row['reason']})" if row["reason"] else ""
            what = f"trial {number} of {study} {_ENDS.get(row['state'], row['state'])}{why}"
    if not complete:
        return ComparisonError(
            what, expected="a complete trial", remedy="go on with the search: none is complete yet"
        )
    trials = ", ".join(map(str, complete))
    return ComparisonError(what, expected=f"a complete trial: {trials}", remedy=remedy)


def _model_of_run(client: Any, name: str, run_id: str) -> NamedModel:
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
    return NamedModel(name, run_id, tags)
