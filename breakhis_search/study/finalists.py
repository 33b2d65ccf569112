"""What follows the search: its best configurations, trained again on several seeds.

One seed is noise, and a search trial stops each fold at the epoch that scored best on that very
fold. Finalists train for a number of epochs fixed beforehand, on all folds and several seeds, as
the model that will be registered does; only they are ranked and selected from. The list is fixed,
so nothing is sampled and no Optuna study stands behind it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from breakhis_search.errors import TrialFailure
from breakhis_search.evaluation.metrics import compute_metrics, score
from breakhis_search.study.analysis import FinalistAnalysis, Findings
from breakhis_search.study.candidate import Candidate, build_candidate, trainer_of, training_data
from breakhis_search.study.claims import claim, release
from breakhis_search.study.context import StudyContext
from breakhis_search.study.folds import predictions_of_fold
from breakhis_search.study.objective import MEDIAN_EPOCH
from breakhis_search.study.ranking import best_configurations
from breakhis_search.study.records import TrialRecord, recorded
from breakhis_search.study.seeding import seed_of
from breakhis_search.study.stages import context_of
from breakhis_search.tracking import keys
from breakhis_search.training.timing import Timer
from breakhis_search.training.trainer import FoldTrainer

_FINALIST = "finalist/"


def run_finalists(
    study: optuna.Study, context: StudyContext, say: Callable[[str], None]
) -> dict[int, str]:
    """Train the finalists that are not trained yet; return the uid of every finalist by trial.

    A finalist that fails (out of memory, a loss that is not finite) is recorded and left out.
    """
    plan = context.config.finalists
    uids: dict[int, str] = {}
    for trial in best_configurations(study, plan.count):
        known = study.user_attrs.get(f"{_FINALIST}{trial.number}") or {}
        if known.get("seeds") != plan.seeds:
            say(
                f"finalist: trial {trial.number} on {plan.seeds} seeds ×"
                f" {len(context.split.folds)} folds, {trial.user_attrs[MEDIAN_EPOCH]} epochs each"
            )
            known = _run_one(study, trial, context_of(trial, context), say)
        if known:
            uids[trial.number] = known["uid"]
    return uids


def _run_one(
    study: optuna.Study, trial: FrozenTrial, context: StudyContext, say: Callable[[str], None]
) -> dict[str, object]:
    what, uid = f"{_FINALIST}{trial.number}", uuid.uuid4().hex
    claim(study, what, uid)
    try:
        run_finalist(trial, context, uid=uid)
    except TrialFailure as failure:
        say(f"finalist: trial {trial.number} failed: {failure}")
        return {}
    finally:
        release(study, what)
    done = {"uid": uid, "seeds": context.config.finalists.seeds}
    study.set_user_attr(what, done)
    return done


def run_finalist(trial: FrozenTrial, context: StudyContext, *, uid: str) -> float:
    """Train one configuration on every fold and seed; return its mean pooled objective.

    Args:
        trial: A complete trial of the search.
        context: The study.
        uid: Identity of the run that records it.

    Raises:
        TrialFailure: It failed for a reason of its own.
    """
    record = TrialRecord(context, uid=uid, number=trial.number, role=keys.ROLE_FINALIST)
    timer = Timer()
    with recorded(record, timer):
        runner = _Repetitions(trial, context, record, timer)
        tables = [runner.run(seed) for seed in range(context.config.finalists.seeds)]
        with timer.measure("evaluate"):
            table = pd.concat(tables, ignore_index=True)
            value = score(table, context.config.objective)
            metrics = compute_metrics(table)
        with timer.measure("analyse"):
            findings = runner.findings(table)
        record.complete(
            value,
            metrics,
            table,
            median_epoch=trial.user_attrs[MEDIAN_EPOCH],
            findings=findings,
        )
        return value


class _Repetitions:
    """Trains one configuration again and again."""

    def __init__(
        self, trial: FrozenTrial, context: StudyContext, record: TrialRecord, timer: Timer
    ) -> None:
        self._trial = trial
        self._context = context
        self._record = record
        self._timer = timer
        self._candidate: Candidate | None = None
        self._analysis = FinalistAnalysis(context)

    def run(self, seed: int) -> pd.DataFrame:
        """Return the out-of-fold predictions of one seed over all folds."""
        candidate = self._begin(seed)
        trainer = trainer_of(candidate, self._context, timer=self._timer)
        folds = range(len(self._context.split.folds))
        parts = [self._run_fold(seed, fold, candidate, trainer) for fold in folds]
        return pd.concat(parts, ignore_index=True)

    def findings(self, table: pd.DataFrame) -> Findings:
        """Return what all repetitions together have shown; ``table`` holds their predictions."""
        candidate = self._candidate or self._begin(0)
        return self._analysis.findings(candidate, table)

    def _begin(self, seed: int) -> Candidate:
        """The candidate with weights of this seed."""
        fixed = optuna.trial.FixedTrial(self._trial.params, number=self._trial.number)
        draw = seed_of(self._context.config.search.seed, "finalist", self._trial.number, seed)
        with self._timer.measure("build"):
            candidate = build_candidate(fixed, self._context, seed=draw)
        if self._candidate is None:
            self._record.describe(candidate)
        self._candidate = candidate
        return candidate

    def _run_fold(
        self, seed: int, number: int, candidate: Candidate, trainer: FoldTrainer
    ) -> pd.DataFrame:
        context, fold = self._context, self._context.split.folds[number]
        data = training_data(context, fold.train, fold.validation)
        part = f"seed_{seed}/fold_{number}"
        result = trainer.fit(
            data,
            seed=seed_of(candidate.seed, number),
            epochs=int(self._trial.user_attrs[MEDIAN_EPOCH]),
            on_epoch=lambda report: self._record.add_epoch(number, report, part=part, seed=seed),
        )
        if seed == 0 and number == 0:
            with self._timer.measure("model"):
                self._record.save_model(trainer.core)
        predictions = predictions_of_fold(context, number, data, result, seed=seed)
        with self._timer.measure("analyse"):
            self._analysis.after_fold(candidate, trainer.core, predictions, fold=number, seed=seed)
        return predictions
