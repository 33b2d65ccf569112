"""Who writes a folder: a lock of the operating system, which ends with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderLock:
    """The right to write a folder, held by one object of one process at a time.

    Unlike a note with a process id, it cannot outlive its holder: nothing has to be cleared up
    after a crash, and there is no moment between looking and taking.

    Args:
        folder: An existing folder; an empty file is kept in it.
        name: Of that file: a folder may have several rights.
    """

    def __init__(self, folder: Path, name: str = "lock") -> None:
        self._file = folder / name
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take it if nobody has it; tell whether this object holds it now.

        Args:
            wait: Wait until nobody has it.

        Raises:
            OSError: The folder cannot be written, or its file system knows no locks.
        """
        if self.is_held:
            return True
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing the only descriptor ends the lock
            self._descriptor = None


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process after the other through the block.

    Args:
        folder: An existing folder, the same for all of them.

    Raises:
        OSError: As :meth:`FolderLock.acquire`.
    """
    lock = FolderLock(folder)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
