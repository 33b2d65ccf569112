"""How long a search is likely to go on, from how long its trials have taken."""

from __future__ import annotations

import statistics
import time

from breakhis_search.study.progress import SearchSize, TrialSummary


class TimeLeft:
    """Guesses stage by stage: what frozen backbones take says nothing of fine-tuning.

    What is done once, such as computing features, is not expected again.
    """

    def __init__(self, size: SearchSize) -> None:
        self._trials = self._until = size.trials
        self._repetitions = size.repetitions
        self._stage = ""
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._finished = 0
        self._complete_s: list[float] = []
        self._once_s = 0.0
        self._busy_since: dict[int, float] = {}
        self._workers: set[int] = set()

    def stage_started(self, name: str, *, until: int) -> None:
        """Forget what an earlier stage took."""
        if name != self._stage:
            self._stage, self._until = name, min(until, self._trials)
            self._begin()

    def computing_once(self, worker: int) -> None:
        """A worker is at something that is not done again."""
        now = time.monotonic()
        self._once_s += now - self._busy_since.get(worker, now)
        self._busy_since[worker] = now
        self._workers.add(worker)

    def training(self, worker: int) -> None:
        """A worker is at what every trial takes."""
        self._busy_since.pop(worker, None)
        self._workers.add(worker)

    def trial_finished(self, summary: TrialSummary) -> None:
        """Learn from a trial that ended."""
        self._finished += 1
        if summary.state == "complete":
            self._complete_s.append(summary.seconds)

    def in_words(self, finished: int) -> str:
        """Return when the stage, or all, is likely to be trained; nothing before a trial ended.

        Trials are taken to go as fast as so far, pruned ones included. A finalist trains like a
        complete trial, once for each of its seeds.

        Args:
            finished: Trials of the study that are done.
        """
        left = self._until - finished
        if not self._finished or left <= 0:
            return ""
        spent = time.monotonic() - self._began - self._once_s / max(1, len(self._workers))
        seconds = left * max(0.0, spent) / self._finished
        is_last = self._until >= self._trials
        if is_last and self._complete_s:
            seconds += self._repetitions * statistics.median(self._complete_s)
        what = "finalists included" if is_last else f"in stage {self._stage}"
        return f" · about {max(1, round(seconds / 60))} min left{', ' if is_last else ' '}{what}"
