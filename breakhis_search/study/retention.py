"""Whose model is kept: hundreds of trials with a backbone each would fill a disk."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState


def is_among_the_best(study: optuna.Study, value: float, count: int) -> bool:
    """Tell whether a score that is just reached is among the best ``count`` of a search so far.

    Args:
        study: Of which more is better.
        value: The score; it is not among the study's complete trials yet.
        count: How many models are to be kept; 0 for none.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sum(other.value is not None and other.value > value for other in complete) < count
