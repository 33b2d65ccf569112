"""The ask-and-tell loop: runs trials until the budget is used up, beside others that do so."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

import optuna
from optuna.trial import TrialState

from breakhis_search.config import StudyConfig
from breakhis_search.errors import StudyError
from breakhis_search.study.budget import (
    REASON,
    cause_of,
    counts_towards_budget,
    reason_to_stop,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.interruption import HeldInterrupt
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.progress import SearchSize
from breakhis_search.study.stages import Stage, begin_stage, in_stage, stages_of
from breakhis_search.study.storage import STOPPED
from breakhis_search.study.taken import FAILED, TakenTrial, one_at_a_time
from breakhis_search.training.devices import resident_gb
from breakhis_search.training.together import CutOff, run_alone, run_together

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
        with one_at_a_time(context):
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
            if FAILED in ends:
                _stop_if_hopeless(study, since=limits.began)
            if not ends and not _wait_for_others(study):
                break
    why = why_stopped(study, context)
    if why is not None:
        context.observer.search_stopped(why)


def why_stopped(study: optuna.Study, context: StudyContext) -> str | None:
    """Return why the search ended before its number of trials, if it did."""
    return reason_to_stop(study.get_trials(deepcopy=False), context.config.search)


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
