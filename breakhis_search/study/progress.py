"""What a search tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class TrialSummary:
    """A trial that has ended.

    Attributes:
        number: Its number in the study.
        state: ``complete``, ``pruned``, ``failed`` or ``interrupted``.
        score: Its pooled objective, if complete.
        seconds: What it took, by all processes that were at it, without what other trials trained
            with it took.
        reason: Why it failed.
    """

    number: int
    state: str
    score: float | None
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class SearchSize:
    """How large a search is, and how far.

    Attributes:
        trials: Its budget.
        finished: So many of them are done.
        folds: Of every trial.
        epochs: The most of a fold.
        best: The best score so far.
        repetitions: How often trials are trained again as finalists.
    """

    trials: int
    finished: int
    folds: int
    epochs: int
    best: float | None
    repetitions: int


class SearchObserver(Protocol):
    """Sees a search go by; what it does with it is its own business."""

    def of_worker(self, number: int) -> None:
        """What follows is told by this worker, where there are several."""

    def search_started(self, size: SearchSize) -> None:
        """A search begins."""

    def stage_started(self, name: str, *, until: int) -> None:
        """A stage of the search begins or goes on; it ends with so many trials of the study."""

    def trial_started(self, number: int, values: Mapping[str, Any]) -> None:
        """A trial begins with these hyperparameters."""

    def probing(self, architecture: str) -> None:
        """The batch size that suits an architecture on this GPU is being looked for."""

    def features_computed(self, backbone: str, done: int, total: int) -> None:
        """The backbone, or its part that is named, has been asked about so many of the images."""

    def epoch_finished(
        self, *, number: int, fold: int, epoch: int, score: float | None, images_per_s: float
    ) -> None:
        """A running trial finished an epoch of a fold (both from 0), at so many images a second."""

    def trial_finished(self, summary: TrialSummary) -> None:
        """A trial ended."""

    def search_stopped(self, why: str) -> None:
        """The search ended before its number of trials."""


class SilentObserver:
    """An observer that looks away."""

    def of_worker(self, number: int) -> None:
        """Do nothing."""

    def search_started(self, size: SearchSize) -> None:
        """Do nothing."""

    def stage_started(self, name: str, *, until: int) -> None:
        """Do nothing."""

    def trial_started(self, number: int, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def probing(self, architecture: str) -> None:
        """Do nothing."""

    def features_computed(self, backbone: str, done: int, total: int) -> None:
        """Do nothing."""

    def epoch_finished(
        self, *, number: int, fold: int, epoch: int, score: float | None, images_per_s: float
    ) -> None:
        """Do nothing."""

    def trial_finished(self, summary: TrialSummary) -> None:
        """Do nothing."""

    def search_stopped(self, why: str) -> None:
        """Do nothing."""
