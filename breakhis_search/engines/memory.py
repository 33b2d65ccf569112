"""How much memory a worker may take before a fresh process takes its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MOST_GB = 64.0
_GROUPS = Path("/sys/fs/cgroup")


def memory_share_gb(workers: int) -> float:
    """Return above how much memory one of some workers makes room for a fresh process, in GB.

    Its share of most of what there is, before the system kills for want of it; 64 at most.

    Args:
        workers: On this machine.
    """
    return min(_MOST_GB, 0.8 * usable_memory_gb() / workers)


def usable_memory_gb(groups: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """Return the memory that this process may use: the machine's, or what its control group allows.

    A container and a job of a cluster have a group of their own, which is killed above its limit.

    Args:
        groups: Where control groups are mounted.
        membership: File that says which ones this process is in, see ``cgroups(7)``.
    """
    of_machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([of_machine, *_limits(groups, membership)]) / 1e9


def _limits(groups: Path, membership: Path) -> Iterator[int]:
    """Limits in bytes of all groups around this process; a group without one says ``max``."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = groups / controllers
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            file = folder / name
            text = file.read_text().strip() if file.is_file() else ""
            if text.isdigit():
                yield int(text)
