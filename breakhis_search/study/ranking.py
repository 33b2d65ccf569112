"""The best configurations that a search has seen. Light: ``status`` reads it, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

NLL = "nll"
"""User attribute of a complete trial: its negative log-likelihood, of images, out-of-fold."""


def best_configurations(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Return the best complete trials of the search, no configuration twice.

    The order is that of the search: pooled out-of-fold objective, then the smaller negative
    log-likelihood, then the trial number.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return best_distinct(complete, count, lambda trial: trial.params)


def best_distinct(
    complete: Iterable[FrozenTrial],
    count: int,
    values_of: Callable[[FrozenTrial], Mapping[str, Any]],
) -> list[FrozenTrial]:
    """Return what :func:`best_configurations` does of trials that may be there in outline only.

    Args:
        complete: Complete trials of one study, with their score and :data:`NLL`.
        count: How many at most.
        values_of: Gives the hyperparameters of a trial; asked of the best ones only.
    """
    chosen: dict[str, FrozenTrial] = {}
    for trial in sorted(complete, key=_rank):
        if len(chosen) == count:
            break
        chosen.setdefault(json.dumps(values_of(trial), sort_keys=True), trial)
    return list(chosen.values())


def _rank(trial: FrozenTrial) -> tuple[float, float, int]:
    return (-(trial.value or 0.0), trial.user_attrs[NLL], trial.number)
