"""What a study that was begun still has to do: trials, finalists, registration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.config import StudyConfig
from breakhis_search.study.budget import counts_towards_budget, reason_to_stop
from breakhis_search.study.finalist_marks import FINALIST, LED_TO_END, mark_of_end
from breakhis_search.study.leases import Leases, finalist_of, lead_of
from breakhis_search.study.ranking import best_distinct
from breakhis_search.study.storage import RUN_UID, STOPPED


@dataclass(frozen=True)
class Outstanding:
    """How far a study is that has not come to its end.

    Attributes:
        trials: Trials of its search that are done.
        budget: Trials its search is to have, if nothing else ends it.
        search_is_over: Whether no more of them are begun.
        finalists: Configurations that are to be trained again; 0 while the search goes on.
        trained: Of them, those that are trained.
        failed: Those that failed; the next run tries them again.
        interrupted: Those that were cut off; the next run goes on with them. Until then MLflow
            shows their runs as FAILED, as it does those of trials that were cut off: it has no
            word of its own for that.
        in_progress: Those that are being trained.
        is_led: Whether a living process leads the study to its end.
        ends_with: What is last of all, ``registered`` or ``selected``: a model of a protocol that
            leaks is never registered.
    """

    trials: int
    budget: int
    search_is_over: bool
    finalists: int
    trained: int
    failed: int
    interrupted: int
    in_progress: int
    is_led: bool
    ends_with: str

    def in_words(self) -> str:
        """Return what is done and what is not, in a clause."""
        if not self.search_is_over:
            return f"{self.trials} of {self.budget} trials done, its finalists come after them"
        if not self.finalists:
            return "its search is over and no trial is complete"
        counts = {
            "in progress": self.in_progress,
            "failed": self.failed,
            "interrupted (FAILED in MLflow until it goes on)": self.interrupted,
        }
        also = "".join(f", {count} {what}" for what, count in counts.items() if count)
        trained = f"finalists {self.trained} of {self.finalists} trained{also}"
        return f"{trained}, not {self.ends_with} yet"


def config_from_text(text: str) -> StudyConfig | None:
    """Return a study from the file that its run keeps; ``None`` where this release can't read it.

    Args:
        text: The file, perhaps empty.
    """
    try:
        return StudyConfig.model_validate(yaml.safe_load(text))
    except (ValueError, yaml.YAMLError):  # what pydantic and what dates refuse are ValueErrors
        return None


def what_is_outstanding(
    config: StudyConfig,
    trials: Sequence[FrozenTrial],
    noted: Mapping[str, Any],
    leases: Leases,
    values_of: Callable[[FrozenTrial], Mapping[str, Any]],
) -> Outstanding | None:
    """Return how far a study is whose run did not come to its end.

    Args:
        config: As it was run last.
        trials: All of its search, perhaps in outline.
        noted: The user attributes of the study.
        leases: Of its database.
        values_of: Gives the hyperparameters of a trial.

    Returns:
        ``None`` where all is done, though MLflow was not told of the end.
    """
    uid, search = str(noted[RUN_UID]), config.search
    done = sum(map(counts_towards_budget, trials))
    is_over = (
        done >= search.trials
        or bool(noted.get(STOPPED))
        or reason_to_stop(trials, search) is not None
    )
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = best_distinct(complete, config.finalists.count, values_of) if is_over else []
    numbers = [trial.number for trial in best]
    states = {number: _state_of(number, noted, config.finalists.seeds) for number in numbers}
    if is_over and noted.get(LED_TO_END) == mark_of_end(numbers, config.finalists.seeds):
        return None
    living = leases.living([lead_of(uid), *(finalist_of(uid, number) for number in numbers)])
    begun = [number for number in numbers if states[number] in ("begun", "waits")]
    at_work = [number for number in begun if finalist_of(uid, number) in living]
    return Outstanding(
        trials=done,
        budget=search.trials,
        search_is_over=is_over,
        finalists=len(numbers),
        trained=sum(state == "complete" for state in states.values()),
        failed=sum(state == "failed" for state in states.values()),
        interrupted=len(begun) - len(at_work),
        in_progress=len(at_work),
        is_led=lead_of(uid) in living,
        ends_with="registered" if config.protocol.unregistrable_because is None else "selected",
    )


def _state_of(number: int, noted: Mapping[str, Any], seeds: int) -> str:
    """What is known of a finalist on as many seeds as are wanted; empty where nothing is."""
    known = noted.get(f"{FINALIST}{number}") or {}
    return str(known["state"]) if known.get("seeds") == seeds else ""
