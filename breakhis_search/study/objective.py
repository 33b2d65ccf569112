"""One trial, from proposed hyperparameters to a score, a model and a complete record of both."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from contextlib import nullcontext

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from breakhis_search.evaluation.metrics import compute_metrics, epoch_score, score
from breakhis_search.evaluation.own_metrics import compute_own_metrics
from breakhis_search.study.budget import SAME_AS
from breakhis_search.study.candidate import (
    Candidate,
    build_candidate,
    trainer_of,
    training_data,
    trains_only_a_head,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.folds import predictions_of_fold
from breakhis_search.study.pruning import ScoresOfFolds
from breakhis_search.study.ranking import NLL
from breakhis_search.study.records import TrialRecord, recorded
from breakhis_search.study.restarts import RestartableTraining
from breakhis_search.study.retention import is_among_the_best
from breakhis_search.study.seeding import seed_of
from breakhis_search.study.twins import finished_twin
from breakhis_search.training.results import EpochReport, FoldResult
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import Training

MEDIAN_EPOCH = "median_epoch"
"""User attribute of a complete trial: for how long its finalist is trained."""


def run_trial(
    trial: optuna.Trial,
    context: StudyContext,
    *,
    uid: str,
    timer: Timer,
    reported: Collection[int] = (),
    lost: int = 0,
) -> Training[float]:
    """Train and score a trial over all folds; return its pooled out-of-fold objective.

    Everything it learns goes to its journal, however it ends, and from there to MLflow; the end
    itself is left to the caller to deliver, once Optuna knows of it.

    Args:
        trial: Of Optuna, begun.
        context: The study.
        uid: Identity of the trial, the same in Optuna and MLflow.
        timer: Collects its seconds by phase, on top of those of a part that was cut off.
        reported: Steps that Optuna was told of in a part of the trial that was cut off.
        lost: How many processes ended while they were at it.

    Raises:
        optuna.TrialPruned: It was not worth going on.
        TrialFailure: It failed for a reason of its own.
        TwinAtWork: A trial of the same values is at work.
    """
    record = TrialRecord(context, uid=uid, number=trial.number)
    with recorded(record, timer, delivers=False):
        seed = seed_of(context.config.search.seed, trial.number)
        with timer.measure("build"):
            candidate = build_candidate(trial, context, seed=seed)
        record.describe(candidate)
        context.observer.trial_started(trial.number, candidate.values)
        twin = finished_twin(trial)
        if twin is not None:
            return _reuse(twin, trial, record)
        folds = _FoldRunner(trial, candidate, context, record, timer, reported, lost)
        results = yield from folds.run_all()
        with timer.measure("evaluate"):
            table = pd.concat([predictions for _, predictions in results], ignore_index=True)
            value = score(table, context.config.objective)
            metrics = compute_metrics(table)
            metrics |= compute_own_metrics(table, context.config.metrics)
        median_epoch = round(statistics.median(fold.best_epoch for fold, _ in results))
        if is_among_the_best(trial.study, value, context.config.search.models_kept):
            folds.save_model_of(results[0][0])
        context.leases.require(uid)
        record.complete(value, metrics, table, median_epoch=median_epoch)
        trial.set_user_attr(MEDIAN_EPOCH, median_epoch)
        trial.set_user_attr(NLL, metrics["image/nll"])
        return value


def _reuse(twin: FrozenTrial, trial: optuna.Trial, record: TrialRecord) -> float:
    """Take over what a trial of the same values came to, and say so."""
    value = float(twin.value or 0.0)
    record.reuse(twin.number, value)
    trial.set_user_attr(SAME_AS, twin.number)
    for known in (MEDIAN_EPOCH, NLL):
        trial.set_user_attr(known, twin.user_attrs[known])
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
        reported: Collection[int],
        lost: int,
    ) -> None:
        self._trial = trial
        self._candidate = candidate
        self._context = context
        self._record = record
        self._timer = timer
        self._trainer = trainer_of(candidate, context, timer=timer)
        # A head on features is done before the question whether it is worth it is answered.
        self._is_light = trains_only_a_head(trial, context)
        search = context.config.search
        self._scores = ScoresOfFolds(
            trial,
            epochs_per_fold=context.config.training.max_epochs,
            every_epoch=not self._is_light and search.pruner != "none",
            known=reported,
        )
        self._trained_s = timer.seconds.get("train", 0.0)  # by processes before this one
        self._training = RestartableTraining(
            self._trainer, None if self._is_light else record.checkpoint, record, lost=lost
        )

    def run_all(self) -> Training[list[tuple[FoldResult, pd.DataFrame]]]:
        """Train every fold; return their results and out-of-fold predictions."""
        results: list[tuple[FoldResult, pd.DataFrame]] = []
        for number in range(len(self._context.split.folds)):
            result = yield from self._run(number)
            results.append(result)
        return results

    def _run(self, number: int) -> Training[tuple[FoldResult, pd.DataFrame]]:
        """Train fold ``number``; return its result and its out-of-fold predictions."""
        context, fold = self._context, self._context.split.folds[number]
        data = training_data(context, fold.train, fold.validation)
        with self._record.epochs_at_once() if self._is_light else nullcontext():
            result = yield from self._training.run(
                f"fold_{number}",
                data,
                seed=seed_of(self._candidate.seed, number),
                epochs=context.config.training.max_epochs,
                score=lambda y, logits: epoch_score(y, logits, context.config.objective),
                on_epoch=lambda report: self._after_epoch(number, report),
                seen=lambda report: self._record_epoch(number, report),
                weights=number == 0,
            )
        return result, predictions_of_fold(context, number, data, result)

    def save_model_of(self, result: FoldResult) -> None:
        """Save the model as it was after a fold; the one of the last fold is lost."""
        with self._timer.measure("model"):
            self._trainer.bring_back(result)
            self._record.save_model(self._candidate.model)

    def _after_epoch(self, fold: int, report: EpochReport) -> None:
        self._context.leases.require(self._record.journal.uid)
        self._record_epoch(fold, report)
        self._context.observer.epoch_finished(
            number=self._trial.number,
            fold=fold,
            epoch=report.epoch,
            score=report.score,
            images_per_s=self._images_per_s(fold),
        )
        if not self._is_light and self._trial.should_prune():
            folds = len(self._context.split.folds)
            where = f"in fold {fold + 1} of {folds}, epoch {report.epoch + 1}"
            reason = f"{where}: below the median of complete trials"
            raise optuna.TrialPruned(reason)

    def _images_per_s(self, fold: int) -> float:
        """The rate of the epoch that has just ended."""
        trained_s = self._timer.seconds.get("train", 0.0)
        seconds, self._trained_s = trained_s - self._trained_s, trained_s
        return len(self._context.split.folds[fold].train) / max(seconds, 1e-9)

    def _record_epoch(self, fold: int, report: EpochReport) -> None:
        self._record.add_epoch(fold, report)
        if report.score is not None:
            self._scores.tell(fold, report.epoch, report.score)
