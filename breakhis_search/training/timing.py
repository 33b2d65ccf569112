"""Where the seconds of a trial go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Timer:
    """Seconds spent by phase of a trial (``train``, ``validate``, …).

    Attributes:
        seconds: By phase, without what others did in between.
        away: Seconds in which others had their turn.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    away: float = 0.0

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time of the block to ``phase``."""
        start, away = time.perf_counter(), self.away
        try:
            yield
        finally:
            own = time.perf_counter() - start - (self.away - away)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + own
