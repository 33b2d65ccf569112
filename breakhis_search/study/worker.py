"""The ask-and-tell loop: draws trials until the budget is used up."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.errors import StudyError, TrackingError, TrialFailure
from breakhis_search.study import lease
from breakhis_search.study.budget import INTERRUPTED, counts_towards_budget
from breakhis_search.study.context import StudyContext
from breakhis_search.study.interruption import HeldInterrupt
from breakhis_search.study.objective import run_trial
from breakhis_search.study.progress import TrialSummary

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


def enqueue_first_trials(
    study: optuna.Study, configurations: Iterable[Mapping[str, object]]
) -> None:
    """Put the study file's hand-picked configurations in the queue, each once ever."""
    for configuration in configurations:
        study.enqueue_trial(dict(configuration), skip_if_exists=True)


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
    while _used(study) < config.search.trials:
        if deadline is not None and time.monotonic() > deadline:
            break
        _run_one(study, context)
        finished += 1
        _stop_if_hopeless(study)
    return finished


def _best_score(study: optuna.Study) -> float | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((t.value for t in complete if t.value is not None), default=None)


def _used(study: optuna.Study) -> int:
    return sum(map(counts_towards_budget, study.get_trials(deepcopy=False)))


def _run_one(study: optuna.Study, context: StudyContext) -> None:
    uid = uuid.uuid4().hex
    # An interruption between these calls would leave a running trial that nobody owns.
    with HeldInterrupt() as interrupt:
        trial = study.ask()
        trial.set_user_attr(LEASE, lease.claim())
        trial.set_user_attr(UID, uid)
    start = time.perf_counter()
    state, value, reason = "interrupted", None, None
    try:
        interrupt.strike()
        value = run_trial(trial, context, uid=uid)
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
        # Ctrl-C, a bug or a store that went away: nobody will finish this trial, say so in Optuna.
        trial.set_user_attr(INTERRUPTED, True)
        trial.set_user_attr(REASON, type(error).__name__)
        failed = study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, KeyboardInterrupt | TrackingError):  # a bug would only come again
            _queue_again(study, failed)
        raise
    finally:
        seconds = time.perf_counter() - start
        context.observer.trial_finished(TrialSummary(trial.number, state, value, seconds, reason))
        # Optuna knows of the end before MLflow does: a store that is lost now costs no trial.
        context.delivery.deliver(context.journal(uid))


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
