"""What follows the search: its best configurations, trained again on several seeds.

One seed is noise, and a search trial stops each fold at the epoch that scored best on that very
fold. Finalists train for a number of epochs fixed beforehand, on all folds and several seeds, as
the model that will be registered does; only they are ranked and selected from. The list is fixed,
so nothing is sampled and no Optuna study stands behind it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from breakhis_search.config import FinalistsConfig
from breakhis_search.errors import TrialFailure
from breakhis_search.evaluation.metrics import compute_metrics, score
from breakhis_search.evaluation.own_metrics import compute_own_metrics
from breakhis_search.study.analysis import FinalistAnalysis, Findings
from breakhis_search.study.candidate import Candidate, build_candidate, trainer_of, training_data
from breakhis_search.study.context import StudyContext
from breakhis_search.study.finalist_marks import FINALIST, LED_TO_END, mark_of_end
from breakhis_search.study.folds import predictions_of_fold
from breakhis_search.study.leases import LeaseLostError, finalist_of
from breakhis_search.study.losses import Losses
from breakhis_search.study.objective import MEDIAN_EPOCH
from breakhis_search.study.ranking import best_configurations
from breakhis_search.study.records import TrialRecord, recorded
from breakhis_search.study.restarts import RestartableTraining
from breakhis_search.study.seeding import seed_of
from breakhis_search.study.stages import context_of
from breakhis_search.study.storage import STORAGE_FAULTS
from breakhis_search.tracking import keys
from breakhis_search.training.results import EpochReport
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import run_alone
from breakhis_search.training.trainer import FoldTrainer

_LOOK_EVERY_S = 1.0


def forget_failed_finalists(study: optuna.Study) -> None:
    """Give finalists that failed another chance; so does each new start."""
    for name, known in study.user_attrs.items():
        if name.startswith(FINALIST) and known.get("state") == "failed":
            study.set_user_attr(name, {})


def train_again(study: optuna.Study, numbers: Sequence[int]) -> None:
    """Have finalists trained once more, in the same runs: what was recorded of them is lost."""
    for number in numbers:
        name = f"{FINALIST}{number}"
        anew = {"state": "waits", "losses": {}}
        study.set_user_attr(name, {**study.user_attrs[name], **anew})


def ended_finalists(study: optuna.Study) -> set[str]:
    """Return the uids of finalists that are over, whatever came of them."""
    known = [v for k, v in study.user_attrs.items() if k.startswith(FINALIST)]
    return {str(found["uid"]) for found in known if found.get("state") in ("complete", "failed")}


def run_finalists(
    study: optuna.Study, context: StudyContext, say: Callable[[str], None]
) -> dict[int, str]:
    """Train the finalists that nobody trained yet; return the uid of every finalist by trial.

    Other processes may do the same at the same time: each takes what nobody living is at, and all
    wait for the last one. What was cut off goes on from its last epoch, in the same run. A finalist
    that fails (out of memory, a loss that is not finite) is recorded and left out.
    """
    trials = best_configurations(study, context.config.finalists.count)
    while waiting := [trial for trial in trials if not _known(study, trial, context).is_over]:
        if not any(_run_if_free(study, trial, context, say) for trial in waiting):
            time.sleep(_LOOK_EVERY_S)
    known = {trial.number: _known(study, trial, context) for trial in trials}
    return {number: found.uid for number, found in known.items() if found.state == "complete"}


def note_end(study: optuna.Study, plan: FinalistsConfig) -> None:
    """Note that the study was led to its end with the finalists that it has now."""
    numbers = [trial.number for trial in best_configurations(study, plan.count)]
    study.set_user_attr(LED_TO_END, mark_of_end(numbers, plan.seeds))


@dataclass(frozen=True)
class _Known:
    """What the study knows of a finalist.

    Attributes:
        uid: Of its run.
        state: ``""`` before it was begun, ``begun``, ``waits`` (left for somebody to go on with),
            ``complete`` or ``failed``.
        losses: Processes that ended while they were at it.
    """

    uid: str
    state: str
    losses: Losses = field(default_factory=Losses)

    @property
    def is_over(self) -> bool:
        return self.state in ("complete", "failed")


def _known(study: optuna.Study, trial: FrozenTrial, context: StudyContext) -> _Known:
    """What is known of a finalist on as many seeds as are wanted now."""
    found = study.user_attrs.get(f"{FINALIST}{trial.number}") or {}
    if found.get("seeds") != context.config.finalists.seeds:
        return _Known(uuid.uuid4().hex, "")
    losses = Losses(**found.get("losses", {}))
    return _Known(str(found["uid"]), str(found["state"]), losses)


def _run_if_free(
    study: optuna.Study, trial: FrozenTrial, context: StudyContext, say: Callable[[str], None]
) -> bool:
    """Train a finalist unless another process does; tell whether this one did."""
    plan, work = context.config.finalists, finalist_of(context.uid, trial.number)
    if not context.leases.take(work):
        return False
    try:
        known = _known(study, trial, context)
        if known.is_over:  # just so, by another process
            return True
        say(
            f"finalist: trial {trial.number} on {plan.seeds} seeds × {len(context.split.folds)}"
            f" folds, {trial.user_attrs[MEDIAN_EPOCH]} epochs each"
            + (", from where it was cut off" if known.state else "")
        )
        if known.state == "begun":  # and nobody is at it
            reached = context.checkpoints.of(known.uid).epochs()
            known = replace(known, losses=known.losses.one_more(reached))
        _note(study, trial, replace(known, state="begun"), plan.seeds)
        try:
            state = _outcome(trial, context, known, work, say)
        except LeaseLostError as lost:  # who took it over brings it to its end
            say(f"finalist: trial {trial.number}: {lost}")
            return True
        except BaseException:  # Ctrl-C too: it waits for the next run
            with suppress(*STORAGE_FAULTS):
                _note(study, trial, replace(known, state="waits"), plan.seeds)
            raise
        _note(study, trial, replace(known, state=state), plan.seeds)
        context.checkpoints.of(known.uid).drop()
    finally:
        context.leases.release(work)
    return True


def _outcome(
    trial: FrozenTrial, context: StudyContext, known: _Known, work: str, say: Callable[[str], None]
) -> str:
    """Train a finalist; return ``complete``, or ``failed`` after having said why."""
    losses = known.losses
    if losses.lost >= context.config.search.attempts:
        reason = f"its process ended {losses.lost} times at the same place"
        say(f"finalist: trial {trial.number} failed: {reason}")
        record = _record(trial, context, known.uid, work)
        record.give_up(reason, Timer(record.checkpoint.seconds()))
        return "failed"
    try:
        run_finalist(
            trial,
            context_of(trial, context),
            uid=known.uid,
            lease=work,
            lost=losses.signs_of_want,
        )
    except TrialFailure as failure:
        say(f"finalist: trial {trial.number} failed: {failure}")
        return "failed"
    return "complete"


def _note(study: optuna.Study, trial: FrozenTrial, known: _Known, seeds: int) -> None:
    study.set_user_attr(f"{FINALIST}{trial.number}", {**asdict(known), "seeds": seeds})


def _record(trial: FrozenTrial, context: StudyContext, uid: str, lease: str) -> TrialRecord:
    return TrialRecord(context, uid=uid, number=trial.number, role=keys.ROLE_FINALIST, lease=lease)


def run_finalist(
    trial: FrozenTrial, context: StudyContext, *, uid: str, lease: str, lost: int = 0
) -> float:
    """Train one configuration on every fold and seed; return its mean pooled objective.

    Args:
        trial: A complete trial of the search.
        context: The study.
        uid: Identity of the run that records it.
        lease: On it, which this process holds.
        lost: How many processes ended while they were at it.

    Raises:
        TrialFailure: It failed for a reason of its own.
        LeaseLostError: Another process has taken it over.
    """
    record = _record(trial, context, uid, lease)
    timer = Timer(record.checkpoint.seconds())
    with recorded(record, timer):
        runner = _Repetitions(trial, context, record, timer, lease=lease, lost=lost)
        tables = [runner.run(seed) for seed in range(context.config.finalists.seeds)]
        with timer.measure("evaluate"):
            table = pd.concat(tables, ignore_index=True)
            value = score(table, context.config.objective)
            metrics = compute_metrics(table)
            metrics |= compute_own_metrics(table, context.config.metrics)
        with timer.measure("analyse"):
            findings = runner.findings(table)
        context.leases.require(lease)
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
        self,
        trial: FrozenTrial,
        context: StudyContext,
        record: TrialRecord,
        timer: Timer,
        *,
        lease: str,
        lost: int,
    ) -> None:
        self._trial = trial
        self._context = context
        self._record = record
        self._timer = timer
        self._lease = lease
        self._lost = lost
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

        def seen(report: EpochReport) -> None:
            self._record.add_epoch(number, report, part=part, seed=seed)

        def after_epoch(report: EpochReport) -> None:
            context.leases.require(self._lease)
            seen(report)

        restartable = RestartableTraining(
            trainer, self._record.checkpoint, self._record, lost=self._lost
        )
        training = restartable.run(
            part,
            data,
            seed=seed_of(candidate.seed, number),
            epochs=int(self._trial.user_attrs[MEDIAN_EPOCH]),
            on_epoch=after_epoch,
            seen=seen,
            weights=True,
        )
        result = run_alone(training)
        trainer.bring_back(result)
        if seed == 0 and number == 0:
            with self._timer.measure("model"):
                self._record.save_model(trainer.core)
        predictions = predictions_of_fold(context, number, data, result, seed=seed)
        with self._timer.measure("analyse"):
            self._analysis.after_fold(candidate, trainer.core, predictions, fold=number, seed=seed)
        return predictions
