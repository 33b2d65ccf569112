"""Pruning by the median of what trials came to by the same epoch of the same fold.

Optuna's ``MedianPruner`` holds the best value a trial ever had against the others' values at this
step; over folds of different difficulty an easy first fold would shield a trial for good. The
current fold alone says too little: its patients are few, and a trial that led before would end by
one bad fold. Here a trial is its mean over the folds so far of the best score in each, in the
current one up to this epoch, and so are the others, over the same folds up to the same epoch.
"""

from __future__ import annotations

import math
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
    """Prunes a trial whose mean over the folds so far is below the median of its stage.

    Args:
        epochs_per_fold: Steps between the folds: step = fold · epochs_per_fold + epoch.
        startup_trials: Complete trials of a stage before any of it is pruned.
        warmup_epochs: Epochs of each fold in which nothing is pruned.
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
        if step is None or step % self._epochs_per_fold < self._warmup_epochs:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        stage = trial.user_attrs.get(STAGE)
        peers = [t for t in complete if t.user_attrs.get(STAGE) == stage]
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        own = self._best_of_folds(trial, step, sign)
        bests = [self._best_of_folds(peer, step, sign) for peer in peers]
        # The split is the same for all: a fold that has no score has none in any trial.
        others = [
            statistics.mean(best[fold] for fold in own)
            for best in bests
            if own and own.keys() <= best.keys()
        ]
        if len(others) < self._startup_trials:
            return False
        return statistics.mean(own.values()) < statistics.median(others)

    def _best_of_folds(self, trial: FrozenTrial, step: int, sign: float) -> dict[int, float]:
        """Return the best score by fold, up to a step."""
        best: dict[int, float] = {}
        for at, value in trial.intermediate_values.items():
            if at <= step and math.isfinite(value):
                fold = at // self._epochs_per_fold
                best[fold] = max(sign * value, best.get(fold, -math.inf))
        return best
