"""A trial that a process has taken: asked for or taken over, run, told, or given back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.errors import TrackingError, TrialFailure
from breakhis_search.settings import without_secrets
from breakhis_search.study.budget import (
    CAUSE,
    INTERRUPTED,
    REASON,
    SAME_AS,
    SECONDS,
    UID,
    counts_towards_budget,
    reason_to_stop,
    without_numbers,
)
from breakhis_search.study.candidate import trains_only_a_head
from breakhis_search.study.context import StudyContext
from breakhis_search.study.leases import LeaseLostError
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.losses import Losses
from breakhis_search.study.objective import run_trial
from breakhis_search.study.progress import TrialSummary
from breakhis_search.study.pruning import STAGE
from breakhis_search.study.records import TrialRecord
from breakhis_search.study.stages import Stage
from breakhis_search.study.storage import STORAGE_FAULTS
from breakhis_search.study.twins import WAITS_FOR, TwinAtWork, waits
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff, Training

LOST = "processes_lost"
"""User attribute of a trial: the fields of its :class:`Losses`; none before the first."""

FAILED = "failed"
_IN_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: FAILED,
}


def one_at_a_time(context: StudyContext) -> AbstractContextManager[None]:
    """Of all processes of the study only one hands out work at a time."""
    return context.leases.exclusively(f"ask/{context.uid}")


@dataclass(frozen=True)
class TakenTrial:
    """A trial that this process has to bring to an end.

    Attributes:
        trial: Of Optuna.
        uid: Its identity in both stores; this process holds the lease of that name.
        timer: Its seconds so far, by all processes that were at it.
        reported: Steps that Optuna knows of from a process that did not end it.
        lost: How many processes that ended while they were at it are a sign of want of memory.
    """

    trial: optuna.Trial
    uid: str
    timer: Timer = field(default_factory=Timer)
    reported: frozenset[int] = frozenset()
    lost: int = 0

    @classmethod
    def next(cls, study: optuna.Study, context: StudyContext, stage: Stage) -> TakenTrial | None:
        """Take over a trial that was left, or else ask for a new one if the stage has room."""
        with one_at_a_time(context):
            trials = study.get_trials(deepcopy=False)  # once: others wait for their turn
            left = set(cut_off_trials(_in_state(trials, TrialState.RUNNING), context.leases))
            for trial in (t for t in trials if t.number in left and not waits(t, trials)):
                taken = cls._take_over(study, context, trial, trials)
                if taken is not None:
                    return taken
            if left:
                trials = study.get_trials(deepcopy=False)
            begun = len(_in_state(trials, TrialState.RUNNING))
            used = sum(map(counts_towards_budget, trials))
            if used + begun >= stage.until or reason_to_stop(trials, context.config.search):
                return None
            timer = Timer()
            with timer.measure("ask"):
                trial_id, uid = _begin(study, context, trials)
        with timer.measure("ask"):
            return cls(_open(study, trial_id, trials), uid, timer)

    @classmethod
    def _take_over(
        cls,
        study: optuna.Study,
        context: StudyContext,
        left: FrozenTrial,
        trials: Sequence[FrozenTrial],
    ) -> TakenTrial | None:
        """Take a trial whose process is gone; ``None`` where it lives, or it was gone too often."""
        uid = left.user_attrs.get(UID)
        # Optuna begins a trial twice when the database's answer is lost: no two share an identity.
        if uid is None or [t.user_attrs.get(UID) for t in trials].count(uid) > 1:
            uid = uuid.uuid4().hex
        if context.leases.holds(uid) or not context.leases.take(uid):
            return None
        [left] = [t for t in study.get_trials(deepcopy=False) if t.number == left.number]
        if left.state.is_finished():  # just so; its process gave up the lease with it
            context.leases.forget(uid)
            return None
        was_given_back = context.checkpoints.of(uid).was_given_back()
        was_given_back = bool(left.user_attrs.get(INTERRUPTED)) or was_given_back
        losses = Losses(**left.user_attrs.get(LOST, {}))
        trial = _open(study, left._trial_id, None)  # noqa: SLF001 - Optuna has no other way
        taken = cls(
            trial,
            uid,
            _timer_of(left, context.checkpoints.of(uid).seconds()),
            reported=frozenset(left.intermediate_values),
            lost=losses.signs_of_want,
        )
        trial.set_user_attr(UID, uid)
        if STAGE not in left.user_attrs:
            trial.set_user_attr(STAGE, context.stage)
        if was_given_back:
            trial.set_user_attr(INTERRUPTED, False)
            return taken
        losses = losses.one_more(context.checkpoints.of(uid).epochs())
        trial.set_user_attr(LOST, asdict(losses))
        if losses.lost < context.config.search.attempts:
            return replace(taken, lost=losses.signs_of_want)
        taken.give_up(study, context, f"its process ended {losses.lost} times at the same place")
        return None

    def is_light(self, context: StudyContext) -> bool:
        """Draw its hyperparameters and tell whether it trains only a head."""
        with self.timer.measure("ask"):
            return trains_only_a_head(self.trial, context)

    def run(self, study: optuna.Study, context: StudyContext) -> Training[str]:
        """Run the trial; tell Optuna, whoever watches, and MLflow in this order how it ended.

        Returns:
            ``complete``, ``pruned``, ``failed`` or ``interrupted``.
        """
        trial, timer = self.trial, self.timer
        state, value, reason = "interrupted", None, None
        try:
            end, value, reason = yield from self._train(context)
            self._note_seconds()
            study.tell(trial, value, state=end)
            state = _IN_WORDS[end]  # not before Optuna knows of it
            same = trial.user_attrs.get(SAME_AS)
            if same is not None:
                reason = f"the same values as trial {same}: not trained again"
        except TwinAtWork as twin:
            reason = str(twin)
            trial.set_user_attr(WAITS_FOR, twin.number)
            self.give_back(study, context, twin)
        # It has another owner now, who tells its end, or has told it.
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError) as lost:
            reason = str(lost)
        except BaseException as error:  # a Ctrl-C too: the next run goes on with it
            self.give_back(study, context, error)
            raise
        finally:
            if state != "interrupted":
                self._end(context)
            seconds = timer.seconds.get("total", 0.0)
            context.observer.trial_finished(
                TrialSummary(trial.number, state, value, seconds, reason)
            )
            # Optuna knows of the end before MLflow does: a store that is lost now costs no trial.
            context.delivery.deliver(context.journal(self.uid))
        return state

    def _train(
        self, context: StudyContext
    ) -> Training[tuple[TrialState, float | None, str | None]]:
        """Train it; return how it ended, its value, and why it has none."""
        try:
            value = yield from run_trial(
                self.trial,
                context,
                uid=self.uid,
                timer=self.timer,
                reported=self.reported,
                lost=self.lost,
            )
        except optuna.TrialPruned as pruned:
            return TrialState.PRUNED, None, str(pruned)
        except TrialFailure as failure:
            self._note_failure(str(failure), failure.what)
            return TrialState.FAIL, None, str(failure)
        return TrialState.COMPLETE, value, None

    def _note_seconds(self) -> None:
        """Tell the budget what the trial has taken, by all who were at it."""
        self.trial.set_user_attr(SECONDS, self.timer.seconds.get("total", 0.0))

    def _note_failure(self, reason: str, cause: str) -> None:
        self.trial.set_user_attr(REASON, without_secrets(reason))
        self.trial.set_user_attr(CAUSE, without_secrets(without_numbers(cause)))

    def _end(self, context: StudyContext) -> None:
        context.checkpoints.of(self.uid).drop()
        context.leases.forget(self.uid)

    def give_up(self, study: optuna.Study, context: StudyContext, reason: str) -> None:
        """End a trial that cannot be brought to an end."""
        record = TrialRecord(context, uid=self.uid, number=self.trial.number)
        record.give_up(reason, self.timer)
        self._note_failure(reason, reason)
        self._note_seconds()
        study.tell(self.trial, state=TrialState.FAIL)
        self._end(context)
        seconds = self.timer.seconds.get("total", 0.0)
        context.observer.trial_finished(
            TrialSummary(self.trial.number, FAILED, None, seconds, reason)
        )

    def give_back(self, study: optuna.Study, context: StudyContext, error: BaseException) -> None:
        """Leave the trial to whoever looks for work next, unless it has ended.

        After Ctrl-C, a store that went away, or its company's end it goes on from its last epoch. A
        bug would only come again.
        """
        try:
            self._give_back(study, context, error)
        except STORAGE_FAULTS:  # who takes it over learns it from the disk
            context.checkpoints.of(self.uid).note_given_back()

    def _give_back(self, study: optuna.Study, context: StudyContext, error: BaseException) -> None:
        [now] = [t for t in study.get_trials(deepcopy=False) if t.number == self.trial.number]
        if now.state.is_finished() or not context.leases.holds(self.uid):
            return
        self.trial.set_user_attr(INTERRUPTED, True)
        self.trial.set_user_attr(REASON, type(error).__name__)
        self._note_seconds()
        if isinstance(error, (KeyboardInterrupt, TrackingError, CutOff, *STORAGE_FAULTS)):
            context.leases.release(self.uid)
            return
        study.tell(self.trial, state=TrialState.FAIL)
        self._end(context)


def _timer_of(left: FrozenTrial, seconds: Mapping[str, float]) -> Timer:
    """Return a timer that goes on where others left a trial.

    Args:
        left: The trial. Optuna knows the total of a process that gave it back, on any machine.
        seconds: By phase, from its checkpoint, where that is here.
    """
    told = float(left.user_attrs.get(SECONDS, 0.0))
    total = max(told, seconds.get("total", 0.0))
    return Timer({**seconds, "total": total} if total else {})


def _begin(
    study: optuna.Study, context: StudyContext, trials: Sequence[FrozenTrial]
) -> tuple[int, str]:
    """Begin a trial of this process, one that was enqueued if there is any; return its id and uid.

    ``study.ask()`` and two attributes come to the same in ten more transactions (45 a trial instead
    of 35, ``tests.faults.scale``), while all other workers wait for their turn.

    Args:
        study: The study.
        context: Of the study.
        trials: Its trials, as of a moment ago.
    """
    uid = uuid.uuid4().hex
    marks = {UID: uid, STAGE: context.stage}
    storage = study._storage  # noqa: SLF001
    context.leases.take(uid)  # first: a new trial is never seen without a living owner
    if _in_state(trials, TrialState.WAITING):
        trial_id = study._pop_waiting_trial_id()  # noqa: SLF001
        if trial_id is not None:
            for key, value in marks.items():
                storage.set_trial_user_attr(trial_id, key, value)
            return trial_id, uid
    begun = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=marks)
    return storage.create_new_trial(study._study_id, begun), uid  # noqa: SLF001


def _open(study: optuna.Study, trial_id: int, known: list[FrozenTrial] | None) -> optuna.Trial:
    """Return a trial of this process.

    Args:
        study: The study.
        trial_id: As Optuna's storage calls it.
        known: All trials as of a moment ago, which spares the sampler one of its readings: each
            takes the longer the more workers there are.
    """
    study._thread_local.cached_all_trials = known  # noqa: SLF001
    return optuna.Trial(study, trial_id)


def _in_state(trials: Sequence[FrozenTrial], state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == state]
