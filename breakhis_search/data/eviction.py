"""Keeps a folder of caches below a size: what was used longest ago goes first.

Other processes read and fill the same folder. What one of them is at is left alone, what vanishes
meanwhile is no error, and a map of a deleted file stays valid for whoever has it open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "lock"
"""Name of the file in a cache's folder that its writer has locked."""

_PART = ".part"
_LEFT_BEHIND_S = 2 * 24 * 3600
"""After so long without a change, what ends on ``.part`` was left by a process that died."""


def evict(place: Path, *, kept: Path, max_bytes: int) -> None:
    """Delete the least recently used caches in a folder until the rest fits.

    Args:
        place: The folder; every file or folder in it is one cache, used when it was last touched.
        kept: The one that is about to be used.
        max_bytes: Of all together.
    """
    sizes: dict[Path, int] = {}
    used: dict[Path, float] = {}
    for cache in _entries(place):
        with suppress(FileNotFoundError):
            used[cache] = cache.stat().st_mtime
            sizes[cache] = _size(cache)
    for cache in [c for c in sizes if c.suffix == _PART]:
        if time.time() - used[cache] > _LEFT_BEHIND_S:
            _delete(cache)
        del sizes[cache]
    total = sum(sizes.values())
    for cache in sorted(sizes, key=used.__getitem__):
        if total <= max_bytes:
            return
        if cache != kept and _delete_unless_in_use(cache):
            total -= sizes[cache]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _size(cache: Path) -> int:
    files = _entries(cache) if cache.is_dir() else [cache]
    total = 0
    for file in files:
        with suppress(FileNotFoundError):  # replaced or deleted by another process
            total += file.stat().st_size
    return total


def _delete_unless_in_use(cache: Path) -> bool:
    """Delete a cache that nobody is filling; tell whether it was."""
    try:
        lock = (cache / LOCK).open("r+")
    except OSError:  # a file, or a folder that was never filled
        return _delete(cache)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return _delete(cache)


def _delete(cache: Path) -> bool:
    if cache.is_dir():
        shutil.rmtree(cache, ignore_errors=True)
    else:
        with suppress(OSError):
            cache.unlink()
    return not cache.exists()


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the only writer of a cache's folder; it is made anew where it was deleted meanwhile.

    The operating system frees the lock of a process that dies.

    Raises:
        OSError: The folder cannot be written.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / LOCK).open("w")
        except FileNotFoundError:  # deleted just now
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_still(folder / LOCK, lock.fileno()):
                yield
                return


def _is_still(file: Path, handle: int) -> bool:
    """Tell whether a path names the file that is open: else its folder was deleted meanwhile."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
