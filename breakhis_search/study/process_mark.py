"""Which process this is, so that a dead one can be told from a living one."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def own_mark() -> dict[str, str | int]:
    """Return the mark of this process: host, boot, process id and its start time.

    Two containers of one machine are two hosts, also where they share a name: their process ids
    mean nothing to each other.
    """
    pid = os.getpid()
    return {"host": _host(), "boot": _boot_id(), "pid": pid, "started": _start_time(pid)}


def is_here(mark: Mapping[str, object]) -> bool:
    """Tell whether a process is, or was, on this host, so that its end can be seen from here."""
    return mark.get("host") == _host()


def is_gone(mark: Mapping[str, object]) -> bool:
    """Tell whether the process that made a mark is known to be gone.

    A process on another host is never known to be gone.
    """
    if not is_here(mark):
        return False
    if mark.get("boot") != _boot_id():
        return True
    started = _start_time(int(str(mark.get("pid", 0))))
    return started == "" or started != mark.get("started")


def _host() -> str:
    """Name, identity and process namespace of this host: two machines may share a name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _boot_id() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.is_file() else ""


def _start_time(pid: int) -> str:
    """Start of a process in clock ticks since boot (process ids are used again); '' if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc").is_dir() or not _answers(pid) else "unknown"
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # a zombie only waits to be noticed


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
