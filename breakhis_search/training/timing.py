"""Where the seconds of a trial go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple


class _Block(NamedTuple):
    """A block that is being measured: its phase, when it began, and ``away`` by then."""

    phase: str
    start: float
    away: float


@dataclass
class Timer:
    """Seconds spent by phase of a trial (``train``, ``validate``, …).

    ``total`` is the time in which some process worked at the trial. A trial that goes on after it
    was cut off begins with the seconds of those who were at it before; the pause is nobody's.

    Attributes:
        seconds: By phase, without what others did in between.
        away: Seconds in which others had their turn.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    away: float = 0.0
    _open: list[_Block] = field(default_factory=list, repr=False)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time of the block to ``phase``."""
        block = _Block(phase, time.perf_counter(), self.away)
        self._open.append(block)
        try:
            yield
        finally:
            self._open.remove(block)
            self._add(self.seconds, block)

    def so_far(self) -> dict[str, float]:
        """Return the seconds by phase as of now, blocks that have not ended yet included."""
        seconds = dict(self.seconds)
        for block in self._open:
            self._add(seconds, block)
        return seconds

    def _add(self, seconds: dict[str, float], block: _Block) -> None:
        own = time.perf_counter() - block.start - (self.away - block.away)
        seconds[block.phase] = seconds.get(block.phase, 0.0) + own
