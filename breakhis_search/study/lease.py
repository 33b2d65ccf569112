"""Who is running a trial, so that a trial of a dead process can be told from a living one."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def claim() -> dict[str, str | int]:
    """Return the mark of this process: host, boot, process id and its start time."""
    pid = os.getpid()
    return {"host": platform.node(), "boot": _boot_id(), "pid": pid, "started": _start_time(pid)}


def is_dead(lease: object) -> bool:
    """Tell whether the process that made a mark is known to be gone.

    A process on another host is never known to be gone.
    """
    if not isinstance(lease, dict) or lease.get("host") != platform.node():
        return False
    if lease.get("boot") != _boot_id():
        return True
    started = _start_time(int(lease.get("pid", 0)))
    return started == "" or started != lease.get("started")


def _boot_id() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.is_file() else ""


def _start_time(pid: int) -> str:
    """Start of a process in clock ticks since boot (process ids are used again); '' if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc").is_dir() or not _answers(pid) else "unknown"
    return stat.rpartition(")")[2].split()[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
