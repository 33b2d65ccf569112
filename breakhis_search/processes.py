"""How this program starts processes of its own."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

CONTEXT = multiprocessing.get_context("spawn")
"""Every one is begun anew: threads and CUDA do not survive a fork."""

_NICENESS = 10


def give_way() -> None:
    """Let this process have what the others of this program leave of the cores.

    Linux may weigh sessions against each other first, and processes within one: so it gets a
    session of its own, which is as nice as it is.
    """
    with suppress(OSError):  # it leads one already
        os.setsid()
    os.nice(_NICENESS)
    with suppress(OSError):  # another system, or one that weighs no sessions
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def usable_cores() -> int:
    """Return how many cores this process may use: a scheduler may give it some of a machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
