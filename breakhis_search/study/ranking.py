"""The best configurations that a search has seen."""

from __future__ import annotations

import json

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.objective import NLL


def best_configurations(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Return the best complete trials of the search, no configuration twice.

    The order is that of the search: pooled out-of-fold objective, then the smaller negative
    log-likelihood, then the trial number.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(complete, key=lambda t: (-(t.value or 0.0), t.user_attrs[NLL], t.number))
    distinct = {json.dumps(t.params, sort_keys=True): t for t in reversed(ranked)}
    return [t for t in ranked if any(t is kept for kept in distinct.values())][:count]
