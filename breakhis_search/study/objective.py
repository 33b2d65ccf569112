"""One trial, from proposed hyperparameters to a score, a model and a complete record of both."""

from __future__ import annotations

import statistics

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd

from breakhis_search.evaluation.metrics import compute_metrics, epoch_score, score
from breakhis_search.study.candidate import (
    Candidate,
    build_candidate,
    trainer_of,
    training_data,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.folds import predictions_of_fold
from breakhis_search.study.records import TrialRecord, recorded
from breakhis_search.study.retention import is_among_the_best
from breakhis_search.study.seeding import seed_of
from breakhis_search.training.trainer import EpochReport, FoldResult, Timer

MEDIAN_EPOCH = "median_epoch"
NLL = "nll"
"""What later stages need to know of a complete trial, kept with it in Optuna."""


def run_trial(trial: optuna.Trial, context: StudyContext, *, uid: str) -> float:
    """Train and score a trial over all folds; return its pooled out-of-fold objective.

    Everything it learns goes to its journal, however it ends, and from there to MLflow; the end
    itself is left to the caller to deliver, once Optuna knows of it.

    Args:
        trial: From ``study.ask()``.
        context: The study.
        uid: Identity of the trial, the same in Optuna and MLflow.

    Raises:
        optuna.TrialPruned: It was not worth going on.
        TrialFailure: It failed for a reason of its own.
    """
    record = TrialRecord(context, uid=uid, number=trial.number)
    timer = Timer()
    with recorded(record, timer, delivers=False):
        seed = seed_of(context.config.search.seed, trial.number)
        with timer.measure("build"):
            candidate = build_candidate(trial, context, seed=seed)
        record.describe(candidate)
        context.observer.trial_started(trial.number, candidate.values)
        folds = _FoldRunner(trial, candidate, context, record, timer)
        results = [folds.run(number) for number in range(len(context.split.folds))]
        with timer.measure("evaluate"):
            table = pd.concat([predictions for _, predictions in results], ignore_index=True)
            value = score(table, context.config.objective)
            metrics = compute_metrics(table)
        median_epoch = round(statistics.median(fold.best_epoch for fold, _ in results))
        if is_among_the_best(trial.study, value, context.config.search.models_kept):
            folds.save_first_model()
        record.complete(value, metrics, table, median_epoch=median_epoch)
        trial.set_user_attr(MEDIAN_EPOCH, median_epoch)
        trial.set_user_attr(NLL, metrics["image/nll"])
        return value


class _FoldRunner:
    """Trains the folds of one trial, one after the other, each from the same initial weights."""

    def __init__(
        self,
        trial: optuna.Trial,
        candidate: Candidate,
        context: StudyContext,
        record: TrialRecord,
        timer: Timer,
    ) -> None:
        self._trial = trial
        self._candidate = candidate
        self._context = context
        self._record = record
        self._timer = timer
        self._trainer = trainer_of(candidate, context, timer=timer)
        self._first_model: list[npt.NDArray[np.generic]] = []

    def run(self, number: int) -> tuple[FoldResult, pd.DataFrame]:
        """Train fold ``number``; return its result and its out-of-fold predictions."""
        context, fold = self._context, self._context.split.folds[number]
        data = training_data(context, fold.train, fold.validation)
        result = self._trainer.fit(
            data,
            seed=seed_of(self._candidate.seed, number),
            epochs=context.config.training.max_epochs,
            score=lambda y, logits: epoch_score(y, logits, context.config.objective),
            on_epoch=lambda report: self._after_epoch(number, report),
        )
        if number == 0:
            self._first_model = [np.array(variable) for variable in self._candidate.model.variables]
        return result, predictions_of_fold(context, number, data, result)

    def save_first_model(self) -> None:
        """Save the model as it was after the first fold; the trained one is lost."""
        model = self._candidate.model
        with self._timer.measure("model"):
            for variable, value in zip(model.variables, self._first_model, strict=True):
                variable.assign(value)
            self._record.save_model(model)

    def _after_epoch(self, fold: int, report: EpochReport) -> None:
        self._record.add_epoch(fold, report)
        self._context.observer.epoch_finished(fold=fold, epoch=report.epoch, score=report.score)
        if report.score is not None:
            step = fold * self._context.config.training.max_epochs + report.epoch
            self._trial.report(report.score, step)
            if self._trial.should_prune():
                reason = f"fold {fold}, epoch {report.epoch}: below the median of finished trials"
                raise optuna.TrialPruned(reason)
