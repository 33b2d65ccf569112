"""Pruning by the median at equal steps of equal folds.

Optuna's ``MedianPruner`` holds the best value a trial ever had against the others' values at this
step; over folds of different difficulty an easy first fold would shield a trial for good. Here the
best value *within the current fold* is compared with the others' best within that fold up to the
same epoch, so that a trial that stopped early there still counts.
"""

from __future__ import annotations

import statistics

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

STAGE = "stage"
"""User attribute: of a trial its stage of the search, of a study the one it has come to."""


class FoldMedianPruner(BasePruner):
    """Prunes a trial whose best score in this fold is below the median of its stage.

    Args:
        epochs_per_fold: Steps between the folds: step = fold · epochs_per_fold + epoch.
        startup_trials: Complete trials of a stage before any of it is pruned.
        warmup_epochs: Epochs of the first fold in which nothing is pruned.
    """

    def __init__(self, *, epochs_per_fold: int, startup_trials: int, warmup_epochs: int) -> None:
        if epochs_per_fold < 1 or startup_trials < 1 or warmup_epochs < 0:
            message = (
                "epochs_per_fold and startup_trials must be positive, warmup_epochs not negative;"
                f" got {epochs_per_fold=}, {startup_trials=}, {warmup_epochs=}"
            )
            raise ValueError(message)
        self._epochs_per_fold = epochs_per_fold
        self._startup_trials = startup_trials
        self._warmup_epochs = warmup_epochs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the trial should stop at its last reported step."""
        step = trial.last_step
        if step is None or step < self._warmup_epochs:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        stage = trial.user_attrs.get(STAGE)
        peers = [t for t in complete if t.user_attrs.get(STAGE) == stage]
        others = [v for t in peers if (v := self._best_in_fold(t, step, sign)) is not None]
        own = self._best_in_fold(trial, step, sign)
        if own is None or len(others) < self._startup_trials:
            return False
        return own < statistics.median(others)

    def _best_in_fold(self, trial: FrozenTrial, step: int, sign: float) -> float | None:
        first = step - step % self._epochs_per_fold
        values = [sign * v for s, v in trial.intermediate_values.items() if first <= s <= step]
        return max(values, default=None)
