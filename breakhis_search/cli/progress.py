"""A search as it goes by: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.status import Status

from breakhis_search.cli import console
from breakhis_search.cli.time_left import TimeLeft
from breakhis_search.study.progress import SearchSize, TrialSummary

_WORD_EVERY_S = 30.0

_STAGES = {
    "probe": "stage probe, frozen backbones",
    "tune": "stage tune, fine-tuning from the best of probe",
}


class TerminalObserver:
    """Shows for every worker trial, fold, epoch and speed; for all the best score and time left."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._trials = self._folds = self._epochs = 0
        self._finished = 0
        self._is_searched = False
        self._states: Counter[str] = Counter()
        self._left: TimeLeft | None = None
        self._best: float | None = None
        self._names: dict[int, str] = {}
        self._stages: set[str] = set()
        self._worker = 0
        self._workers: set[int] = set()
        self._now: dict[int, str] = {}
        self._told_at: dict[str, float] = {}

    def of_worker(self, number: int) -> None:
        """Take what follows as being told by this worker."""
        self._worker = number

    def search_started(self, size: SearchSize) -> None:
        """Remember the size of the search; workers that join it later know nothing new."""
        if self._left is not None:
            return
        self._best = size.best
        self._left = TimeLeft(size)
        self._trials, self._finished = size.trials, size.finished
        self._folds, self._epochs = size.folds, size.epochs
        if console.is_live() and not console.is_verbose():  # lines and a live line push each other
            self._status = console.out.status("searching …")
            self._status.start()

    def stage_started(self, name: str, *, until: int) -> None:
        """Say once what a stage is for, where the search has several."""
        if self._left:
            self._left.stage_started(name, until=until)
        if name in _STAGES and name not in self._stages and until > self._finished:
            console.note(f"{_STAGES[name]}: up to trial {until} of {self._trials}")
        self._stages.add(name)

    def trial_started(self, number: int, values: Mapping[str, Any]) -> None:
        """Name the configuration that is being tried."""
        self._is_training()
        name = f"{values.get('model/architecture')}, {values.get('sampling/strategy')}"
        self._names[number] = name
        self._show(f"trial {number}: {name}")
        console.detail(self._whose(f"trial {number} begins: {_in_words(values)}"))

    def probing(self, architecture: str) -> None:
        """Show that a GPU is being tried out."""
        self._show(f"looking for the best batch size for {architecture} (once a study)")

    def features_computed(self, backbone: str, done: int, total: int) -> None:
        """Show how far a backbone, or a part of it, is with the images it is asked about once."""
        if self._left:
            self._left.computing_once(self._worker)
        text = f"features of {backbone}: {done}/{total} images (once, then kept)"
        self._show(text)
        # Elsewhere than in a terminal minutes would go by without a word.
        now = time.monotonic()
        if not self._status and now - self._told_at.get(backbone, -_WORD_EVERY_S) >= (
            _WORD_EVERY_S
        ):
            self._told_at[backbone] = now
            console.note(text)

    def epoch_finished(
        self, *, number: int, fold: int, epoch: int, score: float | None, images_per_s: float
    ) -> None:
        """Show how far a running trial is."""
        self._is_training()
        now = f" score {score:.3f}" if score is not None else ""
        text = (
            f"trial {number} {self._names.get(number, '')}:"
            f" fold {fold + 1}/{self._folds} epoch {epoch + 1}/{self._epochs}{now}"
            f" · {images_per_s:.0f} images/s"
        )
        self._show(text)
        console.detail(self._whose(text))

    def trial_finished(self, summary: TrialSummary) -> None:
        """Print one line for the trial."""
        self._states[summary.state] += 1
        self._now.pop(self._worker, None)
        if summary.state != "interrupted":
            self._finished += 1
            if self._left:
                self._left.trial_finished(summary)
        if summary.score is not None and (self._best is None or summary.score > self._best):
            self._best = summary.score
        result = f"{summary.score:.4f}" if summary.score is not None else summary.state
        reason = f" ({summary.reason})" if summary.reason else ""
        name = self._names.pop(summary.number, "")
        console.note(
            f"{self._finished}/{self._trials} trial {summary.number:<3}  {result}"
            f"  {name}  {summary.seconds:.{0 if summary.seconds > 10 else 1}f} s{reason}"
            f"{self._best_so_far()}{self._time_left()}"
        )

    def search_stopped(self, why: str) -> None:
        """Say once why no more trials are begun."""
        if why not in self._stages:
            console.note(f"the search ends here: {why}")
        self._stages.add(why)
        self._is_searched = True

    def done_in_words(self) -> str:
        """Return how far a search that was stopped is; nothing before it began."""
        if not self._trials:
            return ""
        words = f": {self._finished} of {self._trials} trials done"
        if self._finished < self._trials and not self._is_searched:
            return words
        return f"{words}, but not all that follows them (`status` tells what is outstanding)"

    def close(self) -> None:
        """Take the live line away."""
        if self._status:
            self._status.stop()

    def _show(self, text: str) -> None:
        """Show what the worker is at now, under what all of them have done."""
        if not self._status:
            return
        self._now[self._worker] = text
        counts = [f"{self._states[s]} {s}" for s in ("pruned", "failed") if self._states[s]]
        head = f"{self._finished}/{self._trials}" + "".join(f" · {count}" for count in counts)
        head += self._best_so_far() + self._time_left()
        lines = [f"{head}  {text}"]
        if len(self._now) > 1:
            lines = [head, *(f"  worker {w}: {now}" for w, now in sorted(self._now.items()))]
        self._status.update(escape("\n".join(lines)))

    def _whose(self, text: str) -> str:
        """The text with who tells it, where several workers do."""
        self._workers.add(self._worker)
        return f"worker {self._worker}: {text}" if len(self._workers) > 1 else text

    def _best_so_far(self) -> str:
        return f" · best {self._best:.4f}" if self._best is not None else ""

    def _time_left(self) -> str:
        return self._left.in_words(self._finished) if self._left else ""

    def _is_training(self) -> None:
        if self._left:
            self._left.training(self._worker)


def _in_words(values: Mapping[str, Any]) -> str:
    """Return hyperparameters in a line.

    >>> _in_words({"head/units": 64, "optimizer/learning_rate": 0.00123456})
    'head/units 64, optimizer/learning_rate 0.001235'
    """
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in sorted(values.items())
    )
