"""Trials of equal values: one is trained, the others have its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.pruning import STAGE
from breakhis_search.training.together import CutOff

WAITS_FOR = "waits_for"
"""User attribute of a trial: the number of one of the same values that was at work before it."""


class TwinAtWork(CutOff):
    """A trial of the same values is being trained; this one goes on once that has ended.

    Args:
        number: Of that trial.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"it waits for trial {number}, which has the same values")
        self.number = number


def finished_twin(trial: optuna.Trial) -> FrozenTrial | None:
    """Return the complete trial of the same values in the same stage, if there is one.

    Args:
        trial: All its values are drawn.

    Raises:
        TwinAtWork: There is none, but an earlier one is on its way.
    """
    twins = list(_twins(trial))
    complete = next((t for t in twins if t.state == TrialState.COMPLETE), None)
    if complete is None:
        for twin in twins:
            # Only ever for an earlier one: no two wait for each other.
            if twin.state == TrialState.RUNNING and twin.number < trial.number:
                raise TwinAtWork(twin.number)
    return complete


def _twins(trial: optuna.Trial) -> Iterable[FrozenTrial]:
    stage = trial.user_attrs.get(STAGE)
    for other in trial.study.get_trials(deepcopy=False):
        is_twin = other.params == trial.params and other.user_attrs.get(STAGE) == stage
        if is_twin and other.number != trial.number:
            yield other


def waits(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Tell whether a trial waits for another one that has not ended yet.

    Args:
        trial: Of a study.
        trials: All trials of it, by number.
    """
    number = trial.user_attrs.get(WAITS_FOR)
    return number is not None and trials[number].state == TrialState.RUNNING
