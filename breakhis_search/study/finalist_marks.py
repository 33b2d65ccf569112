"""What a study notes of its finalists and of its end. Light: ``status`` reads it, too."""

from __future__ import annotations

from collections.abc import Iterable

FINALIST = "finalist/"
"""User attributes of a study that begin so, and end with the number of a trial, hold what is known
of that trial as a finalist: ``uid`` of its run, ``state``, ``seeds`` and ``losses``."""

LED_TO_END = "led_to_end"
"""User attribute of a study: :func:`mark_of_end` when it was last led to its end."""


def mark_of_end(finalists: Iterable[int], seeds: int) -> list[object]:
    """Return what tells the end of a study from that of the same one with more trials or seeds.

    Args:
        finalists: Numbers of the trials that are trained again.
        seeds: On how many seeds.
    """
    return [sorted(finalists), seeds]
