"""Pruning by the median at equal steps of equal folds.

Optuna's ``MedianPruner`` holds the best value a trial ever had against the others' values at this
step; over folds of different difficulty an easy first fold would shield a trial for good. Here the
best value *within the current fold* is compared with the others' best within that fold up to the
same epoch, so that a trial that stopped early there still counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

STAGE = "stage"
"""User attribute: of a trial its stage of the search, of a study the one it has come to."""


class ScoresOfFolds:
    """What Optuna is told of a trial at work: at every step the best score of the fold so far.

    A pruner learns from the last step how far a trial is, so that one whose score no longer rises
    has to tell of every epoch; of a trial that nobody prunes, what is no improvement is not stored.

    Args:
        trial: Of Optuna, at work.
        epochs_per_fold: Steps between the folds: step = fold · epochs_per_fold + epoch.
        every_epoch: Tell of every epoch, not of improvements alone.
        known: Steps that Optuna was told of by a process that did not end the trial.
    """

    def __init__(
        self, trial: Trial, *, epochs_per_fold: int, every_epoch: bool, known: Collection[int] = ()
    ) -> None:
        self._trial = trial
        self._epochs_per_fold = epochs_per_fold
        self._every_epoch = every_epoch
        self._known = set(known)
        self._best: dict[int, float] = {}

    def tell(self, fold: int, epoch: int, score: float) -> None:
        """Tell Optuna of an epoch, both counted from 0."""
        best = self._best.get(fold)
        is_better = best is None or score > best
        self._best[fold] = score if best is None else max(score, best)
        step = fold * self._epochs_per_fold + epoch
        if (is_better or self._every_epoch) and step not in self._known:
            self._known.add(step)
            self._trial.report(self._best[fold], step)


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
