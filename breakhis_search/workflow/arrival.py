"""Finalists, once MLflow holds them: others may have trained some, and bring them over themselves.

Optuna knows of an end before MLflow does. What was trained by another process, perhaps on another
machine, is on its way when the last finalist has ended; who selects from what has arrived by then
would select from too few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from breakhis_search.comparison.leaderboard import (
    only_finalists,
    read_leaderboard,
    search_trials_of,
)
from breakhis_search.errors import TrackingError
from breakhis_search.study.context import StudyContext
from breakhis_search.study.finalists import run_finalists, train_again
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import PATIENCE_S
from breakhis_search.tracking.store import tracking_errors

_OF_TRIALS_S = 60.0
"""How long to wait for trials of the search: they only say how much of the best score is luck."""

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Arrived:
    """Finalists whose runs MLflow holds to their ends.

    Attributes:
        runs: MLflow runs by number of the trial.
        board: The leaderboard, without other finalists.
    """

    runs: dict[int, str]
    board: pd.DataFrame


def finalists_in_mlflow(
    study: optuna.Study, context: StudyContext, client: Any, say: Callable[[str], None]
) -> Arrived | None:
    """Train the finalists that nobody trained yet, and wait until MLflow holds all of them.

    What did not come within five minutes is lost with the machine that recorded it, as far as can
    be told from here: it is trained once more.

    Args:
        study: The searched study.
        context: The study.
        client: MLflow client.
        say: Told what is being done.

    Returns:
        ``None`` where no trial of the search is complete, or every finalist failed.

    Raises:
        TrackingError: MLflow refuses, or holds none of them all the same.
    """
    wait = _Wait(study, context, client, say)
    arrived, absent = wait.until_there(run_finalists(study, context, say))
    if absent:
        say(f"{_named(absent)} did not come to MLflow from where it was trained: trained again")
        train_again(study, absent)
        arrived, absent = wait.until_there(run_finalists(study, context, say))
    if absent:
        say(f"{_named(absent)} is not in MLflow, and is left out: `status` says why")
    if absent and not arrived.runs:
        raise TrackingError(
            "MLflow holds none of the finalists",
            remedy="see with `status` what is set aside, mend it, then run the same command again",
        )
    return arrived if arrived.runs else None


@dataclass(frozen=True)
class _Wait:
    study: optuna.Study
    context: StudyContext
    client: Any
    say: Callable[[str], None]

    def until_there(self, uids: Mapping[int, str]) -> tuple[Arrived, list[int]]:
        """Wait for the runs of finalists; return what is there, and the numbers of the others."""
        began, has_told = time.monotonic(), False
        while True:
            arrived, absent, late = self._look(uids)
            waited_s = time.monotonic() - began
            is_long = waited_s > (PATIENCE_S if absent else _OF_TRIALS_S)
            if is_long or not (absent or late):
                return arrived, absent
            if not has_told:
                self.say("waiting for what other processes bring to MLflow")
                has_told = True
            time.sleep(_LOOK_EVERY_S)

    def _look(self, uids: Mapping[int, str]) -> tuple[Arrived, list[int], int]:
        """What is there, the finalists that are not, and how many trials of the search are not."""
        run_ids = {number: self.context.delivery.run_id(uid) for number, uid in uids.items()}
        with tracking_errors(self.context.settings.tracking_uri):
            board = read_leaderboard(self.client, [self.context.name], study_uid=self.context.uid)
        is_there = (board["stage"] == keys.STAGE_FINALISTS) & (board["state"] == "complete")
        there = set(board.loc[is_there, "run_id"])
        runs = {n: run_id for n, run_id in run_ids.items() if run_id is not None}
        runs = {n: run_id for n, run_id in runs.items() if run_id in there}
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        late = {trial.number for trial in complete} - set(search_trials_of(board)["trial"])
        absent = sorted(uids.keys() - runs.keys())
        return Arrived(runs, only_finalists(board, list(runs.values()))), absent, len(late)


def _named(numbers: list[int]) -> str:
    return f"finalist{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
