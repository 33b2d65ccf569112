"""A search as it goes by: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.status import Status

from breakhis_search.cli.console import out
from breakhis_search.study.progress import TrialSummary

_STAGES = {
    "probe": "stage probe, frozen backbones",
    "tune": "stage tune, fine-tuning from the best of probe",
}


class TerminalObserver:
    """Shows trial, fold, epoch, best score so far and the time that is left."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._trials = self._folds = self._epochs = 0
        self._finished = 0
        self._finished_here = 0
        self._search_started = 0.0
        self._best: float | None = None
        self._names: dict[int, str] = {}

    def search_started(
        self, *, trials: int, finished: int, folds: int, epochs: int, best: float | None
    ) -> None:
        """Remember the size of the search."""
        self._best = best
        self._search_started = time.monotonic()
        self._trials, self._folds, self._epochs, self._finished = trials, folds, epochs, finished
        if out.is_terminal:
            self._status = out.status("searching …")
            self._status.start()

    def stage_started(self, name: str, *, until: int) -> None:
        """Say what a stage is for, where the search has several."""
        if name in _STAGES and until > self._finished:
            out.print(f"{_STAGES[name]}: up to trial {until} of {self._trials}", soft_wrap=True)

    def trial_started(self, number: int, values: Mapping[str, Any]) -> None:
        """Name the configuration that is being tried."""
        name = f"{values.get('model/architecture')}, {values.get('sampling/strategy')}"
        self._names[number] = name
        self._show(f"trial {number}: {name}")

    def probing(self, architecture: str) -> None:
        """Show that a GPU is being tried out."""
        self._show(f"looking for the best batch size for {architecture} (once a study)")

    def features_computed(self, architecture: str, done: int, total: int) -> None:
        """Show how far a backbone is with the images it is asked about once."""
        self._show(f"features of {architecture}: {done}/{total} images (once, then kept)")

    def epoch_finished(self, *, number: int, fold: int, epoch: int, score: float | None) -> None:
        """Show how far a running trial is."""
        now = f" score {score:.3f}" if score is not None else ""
        self._show(
            f"{self._finished + 1}/{self._trials} trial {number} {self._names.get(number, '')}:"
            f" fold {fold + 1}/{self._folds} epoch {epoch + 1}/{self._epochs}{now}"
            f"{self._best_so_far()}{self._time_left()}"
        )

    def trial_finished(self, summary: TrialSummary) -> None:
        """Print one line for the trial."""
        if summary.state != "interrupted":
            self._finished += 1
            self._finished_here += 1
        if summary.score is not None and (self._best is None or summary.score > self._best):
            self._best = summary.score
        result = f"{summary.score:.4f}" if summary.score is not None else summary.state
        reason = f" ({summary.reason})" if summary.reason else ""
        name = self._names.pop(summary.number, "")
        out.print(
            escape(
                f"{self._finished}/{self._trials} trial {summary.number:<3}  {result}"
                f"  {name}  {summary.seconds:.{0 if summary.seconds > 10 else 1}f} s{reason}"
                f"{self._best_so_far()}{self._time_left()}"
            ),
            soft_wrap=True,
        )

    def done_in_words(self) -> str:
        """Return how many trials of the budget are done; nothing before a search began."""
        return f": {self._finished} of {self._trials} trials done" if self._trials else ""

    def close(self) -> None:
        """Take the live line away."""
        if self._status:
            self._status.stop()

    def _show(self, text: str) -> None:
        if self._status:
            self._status.update(escape(text))

    def _best_so_far(self) -> str:
        return f" · best {self._best:.4f}" if self._best is not None else ""

    def _time_left(self) -> str:
        left = self._trials - self._finished
        if not self._finished_here or left <= 0:
            return ""
        seconds = left * (time.monotonic() - self._search_started) / self._finished_here
        return f" · about {max(1, round(seconds / 60))} min left"
