"""The ask-and-tell loop: draws trials until the budget is used up."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.config import StudyConfig
from breakhis_search.errors import StudyError, TrackingError, TrialFailure
from breakhis_search.study import lease
from breakhis_search.study.budget import INTERRUPTED, counts_towards_budget
from breakhis_search.study.candidate import trains_only_a_head
from breakhis_search.study.context import StudyContext
from breakhis_search.study.interruption import HeldInterrupt
from breakhis_search.study.objective import run_trial
from breakhis_search.study.progress import TrialSummary
from breakhis_search.study.pruning import STAGE
from breakhis_search.study.stages import begin_stage, in_stage, stages_of
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff, Training, run_alone, run_together

UID = "trial_uid"
LEASE = "lease"
REASON = "reason"

SAME_FAILURES_THAT_STOP = 3

UNMARKED_FOR = timedelta(minutes=1)
"""How long a trial may run without the mark of its process; leaving it takes moments."""


def settle_dead_trials(study: optuna.Study, context: StudyContext) -> list[int]:
    """Fail the trials whose process is gone, put their configurations back in the queue.

    Returns:
        Their numbers.
    """
    settled = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_abandoned(trial):
            _record_interruption(trial, context)
            _fail_and_queue_again(study, trial)
            settled.append(trial.number)
    return settled


def _is_abandoned(trial: FrozenTrial) -> bool:
    """Tell whether nobody will ever finish a running trial."""
    claimed = trial.user_attrs.get(LEASE)
    if claimed is not None:
        return lease.is_dead(claimed)
    # Its process ended between asking and leaving its mark, unless that is just happening.
    started = trial.datetime_start
    return started is None or datetime.now() - started > UNMARKED_FOR  # noqa: DTZ005 - as Optuna


def _record_interruption(trial: FrozenTrial, context: StudyContext) -> None:
    """End the run of a trial, if it was begun in this folder; also one that says it is complete.

    Optuna was never told, and Optuna's state is the truth. Delivering it is left to the caller.
    """
    uid = trial.user_attrs.get(UID)
    if uid and context.journal(str(uid)).is_begun:
        context.journal(str(uid)).end_cut_off()


def _fail_and_queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    storage = study._storage  # noqa: SLF001 - tell() cannot add attributes
    storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)  # noqa: SLF001
    _queue_again(study, study.tell(trial.number, state=TrialState.FAIL))


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial's values, also those that were hand-picked and that it did not come to use."""
    configuration = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if configuration:
        study.enqueue_trial(configuration)


def run_search(study: optuna.Study, context: StudyContext) -> int:
    """Run trials until the budget is reached; return how many this call finished.

    Raises:
        StudyError: The first trials all fail for the same reason.
        KeyboardInterrupt: The user stopped it; the running trial is recorded and queued again.
    """
    config = context.config
    timeout = config.search.timeout
    deadline = None if timeout is None else time.monotonic() + timeout
    context.observer.search_started(
        trials=config.search.trials,
        finished=_used(study),
        folds=len(context.split.folds),
        epochs=config.training.max_epochs,
        best=_best_score(study),
    )
    finished = 0
    for stage in stages_of(config):
        if not begin_stage(study, stage):
            continue
        context.observer.stage_started(stage.name, until=stage.until)
        in_it = in_stage(context, stage)
        while (left := stage.until - _used(study)) > 0:
            if deadline is not None and time.monotonic() > deadline:
                return finished
            finished += run_batch(study, in_it, at_most=min(left, largest_batch(config)))
            _stop_if_hopeless(study)
    return finished


def largest_batch(config: StudyConfig) -> int:
    """Return how many trials may be asked for before one of them is told.

    Who asks for all at once searches at random: the sampler learns from what it was told.
    """
    return max(8, config.search.trials // 8)


def run_batch(study: optuna.Study, context: StudyContext, *, at_most: int) -> int:
    """Ask for some trials and run them to their ends; return how many.

    Heads on stored features are trained side by side. Any other trial ends the batch, and is run by
    itself.
    """
    asked: list[AskedTrial] = []
    try:
        with HeldInterrupt() as interrupt:  # a trial that is asked for always has an owner
            heads_only = True
            while heads_only and len(asked) < at_most:
                asked.append(AskedTrial.ask(study, context.stage))
                heads_only = at_most > 1 and asked[-1].is_light(context)
        interrupt.strike()
        together = asked if heads_only else asked[:-1]
        run_together([trial.run(study, context) for trial in together])
        if not heads_only:
            run_alone(asked[-1].run(study, context))
    except BaseException:
        for trial in asked:
            trial.give_back(study, CutOff())
        raise
    return len(asked)


def _best_score(study: optuna.Study) -> float | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((t.value for t in complete if t.value is not None), default=None)


def _used(study: optuna.Study) -> int:
    return sum(map(counts_towards_budget, study.get_trials(deepcopy=False)))


@dataclass(frozen=True)
class AskedTrial:
    """A trial that this process has to bring to an end.

    Attributes:
        trial: Marked as this process's.
        uid: Its identity in both stores.
        timer: Its seconds so far.
    """

    trial: optuna.Trial
    uid: str
    timer: Timer

    @classmethod
    def ask(cls, study: optuna.Study, stage: str) -> AskedTrial:
        """Ask for a trial and mark it; an interruption in between would leave it ownerless."""
        uid, timer = uuid.uuid4().hex, Timer()
        with timer.measure("ask"):
            trial = study.ask()
            trial.set_user_attr(LEASE, lease.claim())
            trial.set_user_attr(UID, uid)
            trial.set_user_attr(STAGE, stage)
        return cls(trial, uid, timer)

    def is_light(self, context: StudyContext) -> bool:
        """Draw its hyperparameters and tell whether it trains only a head."""
        with self.timer.measure("ask"):
            return trains_only_a_head(self.trial, context)

    def run(self, study: optuna.Study, context: StudyContext) -> Training[None]:
        """Run the trial; tell Optuna, whoever watches, and MLflow in this order how it ended."""
        trial, timer = self.trial, self.timer
        state, value, reason = "interrupted", None, None
        try:
            value = yield from run_trial(trial, context, uid=self.uid, timer=timer)
            study.tell(trial, value)
            state = "complete"
        except optuna.TrialPruned as pruned:
            state, reason = "pruned", str(pruned)
            study.tell(trial, state=TrialState.PRUNED)
        except TrialFailure as failure:
            state, reason = "failed", str(failure)
            trial.set_user_attr(REASON, reason)
            study.tell(trial, state=TrialState.FAIL)
        except BaseException as error:
            self.give_back(study, error)
            raise
        finally:
            seconds = timer.seconds.get("total", 0.0)
            context.observer.trial_finished(
                TrialSummary(trial.number, state, value, seconds, reason)
            )
            # Optuna knows of the end before MLflow does: a store that is lost now costs no trial.
            context.delivery.deliver(context.journal(self.uid))

    def give_back(self, study: optuna.Study, error: BaseException) -> None:
        """Say in Optuna that nobody will finish the trial, unless it has ended.

        Ctrl-C, a store that went away, a bug (which would only come again) or the company's end.
        """
        [now] = [t for t in study.get_trials(deepcopy=False) if t.number == self.trial.number]
        if now.state.is_finished():
            return
        self.trial.set_user_attr(INTERRUPTED, True)
        self.trial.set_user_attr(REASON, type(error).__name__)
        failed = study.tell(self.trial, state=TrialState.FAIL)
        if isinstance(error, KeyboardInterrupt | TrackingError | CutOff):
            _queue_again(study, failed)


def _stop_if_hopeless(study: optuna.Study) -> None:
    """Stop when every trial so far failed, and for one reason."""
    ended = [t for t in study.get_trials(deepcopy=False) if counts_towards_budget(t)]
    if len(ended) < SAME_FAILURES_THAT_STOP or any(t.state != TrialState.FAIL for t in ended):
        return
    [(reason, count), *_] = Counter(str(t.user_attrs.get(REASON)) for t in ended).most_common(1)
    if count == len(ended):
        raise StudyError(
            f"all {count} trials failed for the same reason ({reason})",
            remedy="mend the cause, then run again with --new",
        )
