"""The ask-and-tell loop: runs trials until the budget is used up, beside others that do so."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.config import StudyConfig
from breakhis_search.errors import StudyError, TrackingError, TrialFailure
from breakhis_search.settings import without_secrets
from breakhis_search.study.budget import (
    CAUSE,
    INTERRUPTED,
    REASON,
    SAME_AS,
    SECONDS,
    UID,
    cause_of,
    counts_towards_budget,
    reason_to_stop,
    without_numbers,
)
from breakhis_search.study.candidate import trains_only_a_head
from breakhis_search.study.context import StudyContext
from breakhis_search.study.interruption import HeldInterrupt
from breakhis_search.study.leases import LeaseLostError
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.losses import Losses
from breakhis_search.study.objective import run_trial
from breakhis_search.study.progress import SearchSize, TrialSummary
from breakhis_search.study.pruning import STAGE
from breakhis_search.study.records import TrialRecord
from breakhis_search.study.stages import Stage, begin_stage, in_stage, stages_of
from breakhis_search.study.storage import STOPPED, STORAGE_FAULTS
from breakhis_search.study.twins import WAITS_FOR, TwinAtWork, waits
from breakhis_search.training.devices import resident_gb
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff, Training, run_alone, run_together

LOST = "processes_lost"
"""User attribute of a trial: the fields of its :class:`Losses`; none before the first."""

_FAILED = "failed"
_IN_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: _FAILED,
}
SAME_FAILURES_THAT_STOP = 3
SAME_FAILURES_IN_A_ROW_THAT_STOP = 10
"""Also where others were complete before: a device, a disk may break in the middle of a study."""

_TIME_IS_UP = "its time is up (search.timeout)"

_LOOK_EVERY_S = 1.0


class WorkerIsTired(Exception):  # noqa: N818 - no error: a fresh process takes the place
    """This process has run for long enough, and there is still something to do."""


@dataclass(frozen=True)
class WorkerLimits:
    """How long a process may go on: TensorFlow does not give back all it takes.

    Attributes:
        trials: So many trials; ``None`` for any number.
        memory_gb: As long as it takes no more than that; ``None`` for any amount.
        began: When the run began, in seconds since 1970, for all its processes, also those that
            take the place of others; by default now.
    """

    trials: int | None = None
    memory_gb: float | None = None
    began: float = field(default_factory=time.time)

    def check(self, finished: int) -> None:
        """Tell whether to go on after so many trials.

        Raises:
            WorkerIsTired: No.
        """
        if self.trials is not None and finished >= self.trials:
            raise WorkerIsTired
        # Not before the first one: a process that takes too much from the beginning would be
        # replaced by its like for ever.
        if self.memory_gb is not None and finished and resident_gb() > self.memory_gb:
            raise WorkerIsTired


def run_search(
    study: optuna.Study, context: StudyContext, limits: WorkerLimits | None = None
) -> None:
    """Run trials until the budget is reached.

    Other processes may do the same at the same time. A trial whose process is gone is taken over
    by whoever looks for work next, and goes on from its last epoch.

    Args:
        study: The Optuna study.
        context: The study.
        limits: How long this process may go on.

    Raises:
        StudyError: The first trials all fail for the same reason.
        WorkerIsTired: The limits are reached.
        KeyboardInterrupt: The user stopped it; the running trial is left for the next run.
    """
    config = context.config
    limits = limits or WorkerLimits()
    timeout = config.search.timeout
    deadline = None if timeout is None else limits.began + timeout
    context.observer.search_started(
        SearchSize(
            trials=config.search.trials,
            finished=_used(study),
            folds=len(context.split.folds),
            epochs=config.training.max_epochs,
            best=_best_score(study),
            repetitions=config.finalists.count * config.finalists.seeds,
        )
    )
    if study.user_attrs.get(STOPPED):
        study.set_user_attr(STOPPED, "")
    finished = 0
    for stage in stages_of(config):
        with _alone(context):
            begun = begin_stage(study, stage)
        if not begun:
            continue
        context.observer.stage_started(stage.name, until=stage.until)
        in_it = in_stage(context, stage)
        while True:
            if deadline is not None and time.time() > deadline:
                context.observer.search_stopped(_TIME_IS_UP)
                study.set_user_attr(STOPPED, _TIME_IS_UP)
                _wait_for_living(study, context)
                return
            limits.check(finished)
            ends = run_batch(study, in_it, stage, at_most=largest_batch(config))
            finished += len(ends)
            if _FAILED in ends:
                _stop_if_hopeless(study, since=limits.began)
            if not ends and not _wait_for_others(study):
                break
    why = why_stopped(study, context)
    if why is not None:
        context.observer.search_stopped(why)


def why_stopped(study: optuna.Study, context: StudyContext) -> str | None:
    """Return why the search ended before its number of trials, if it did."""
    return reason_to_stop(study.get_trials(deepcopy=False), context.config.search)


def _alone(context: StudyContext) -> AbstractContextManager[None]:
    """Of all processes of the study only one hands out work at a time."""
    return context.leases.exclusively(f"ask/{context.uid}")


def _wait_for_others(study: optuna.Study) -> bool:
    """Wait a moment for trials that are not this process's; ``False`` where there is no such."""
    if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        return False
    time.sleep(_LOOK_EVERY_S)
    return True


def _wait_for_living(study: optuna.Study, context: StudyContext) -> None:
    """Wait for the trials that others are at: they count, and one of them may be the best."""
    while True:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if len(cut_off_trials(running, context.leases)) == len(running):
            return
        time.sleep(_LOOK_EVERY_S)


def largest_batch(config: StudyConfig) -> int:
    """Return how many trials may be asked for before one of them is told.

    Who asks for all at once searches at random: the sampler learns from what it was told.
    """
    return max(8, config.search.trials // 8)


def run_batch(
    study: optuna.Study, context: StudyContext, stage: Stage, *, at_most: int
) -> list[str]:
    """Take some trials and run them to their ends; return what became of each.

    Heads on stored features are trained side by side. Any other trial ends the batch, and is run by
    itself.
    """
    taken: list[TakenTrial] = []
    try:
        with HeldInterrupt() as interrupt:  # a trial that is asked for always has an owner
            heads_only = True
            while heads_only and len(taken) < at_most:
                trial = TakenTrial.next(study, context, stage)
                if trial is None:
                    break
                taken.append(trial)
                # One that a process was lost with may have been the cause: it goes alone.
                heads_only = at_most > 1 and not trial.lost and trial.is_light(context)
        interrupt.strike()
        together = taken if heads_only else taken[:-1]
        ends = run_together([trial.run(study, context) for trial in together])
        if not heads_only:
            ends.append(run_alone(taken[-1].run(study, context)))
    except BaseException:  # a Ctrl-C too: what was asked for is given back
        for trial in taken:
            trial.give_back(study, context, CutOff())
        raise
    return ends


def _best_score(study: optuna.Study) -> float | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((t.value for t in complete if t.value is not None), default=None)


def _used(study: optuna.Study) -> int:
    return sum(map(counts_towards_budget, study.get_trials(deepcopy=False)))


def _in_state(trials: Sequence[FrozenTrial], state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == state]


@dataclass(frozen=True)
class TakenTrial:
    """A trial that this process has to bring to an end.

    Attributes:
        trial: Of Optuna.
        uid: Its identity in both stores; this process holds the lease of that name.
        timer: Its seconds so far.
        reported: Steps that Optuna knows of from a process that did not end it.
        lost: How many processes that ended while they were at it are a sign of want of memory.
        spent_s: Seconds that processes were at it before, as far as they could tell.
    """

    trial: optuna.Trial
    uid: str
    timer: Timer = field(default_factory=Timer)
    reported: frozenset[int] = frozenset()
    lost: int = 0
    spent_s: float = 0.0

    @classmethod
    def next(cls, study: optuna.Study, context: StudyContext, stage: Stage) -> TakenTrial | None:
        """Take over a trial that was left, or else ask for a new one if the stage has room."""
        with _alone(context):
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
            reported=frozenset(left.intermediate_values),
            lost=losses.signs_of_want,
            spent_s=float(left.user_attrs.get(SECONDS, 0.0)),
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
        self.trial.set_user_attr(SECONDS, self.spent_s + self.timer.seconds.get("total", 0.0))

    def _note_failure(self, reason: str, cause: str) -> None:
        self.trial.set_user_attr(REASON, without_secrets(reason))
        self.trial.set_user_attr(CAUSE, without_secrets(without_numbers(cause)))

    def _end(self, context: StudyContext) -> None:
        context.checkpoints.of(self.uid).drop()
        context.leases.forget(self.uid)

    def give_up(self, study: optuna.Study, context: StudyContext, reason: str) -> None:
        """End a trial that cannot be brought to an end."""
        TrialRecord(context, uid=self.uid, number=self.trial.number).give_up(reason)
        self._note_failure(reason, reason)
        self._note_seconds()
        study.tell(self.trial, state=TrialState.FAIL)
        self._end(context)
        context.observer.trial_finished(
            TrialSummary(self.trial.number, "failed", None, 0.0, reason)
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


def _stop_if_hopeless(study: optuna.Study, *, since: float) -> None:
    """Stop when trials fail one after the other, for one reason.

    Args:
        study: The study.
        since: When this run began, in seconds since 1970: what failed before may be mended now.

    Raises:
        StudyError: Every trial of the study failed so, or the last ones since then.
    """
    ended = [t for t in study.get_trials(deepcopy=False) if counts_towards_budget(t)]
    begun = datetime.fromtimestamp(since)  # noqa: DTZ006 - Optuna's times have no zone
    recent = [t for t in ended if t.datetime_complete and t.datetime_complete >= begun]
    recent.sort(key=lambda t: t.datetime_complete or begun)
    for what, trials, enough in (
        ("all", ended, SAME_FAILURES_THAT_STOP),
        ("the last", recent[-SAME_FAILURES_IN_A_ROW_THAT_STOP:], SAME_FAILURES_IN_A_ROW_THAT_STOP),
    ):
        is_hopeless = len(trials) >= enough and all(t.state == TrialState.FAIL for t in trials)
        if is_hopeless and len(set(map(cause_of, trials))) == 1:
            raise StudyError(
                f"{what} {len(trials)} trials failed for the same reason"
                f" ({trials[-1].user_attrs.get(REASON)})",
                remedy="mend the cause, then run again" + " with --new" * (trials is ended),
            )
