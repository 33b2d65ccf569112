"""What the disk refuses while an archive is fetched or unpacked, in words."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from breakhis_search.errors import DownloadError


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise if the disk of a folder has less space than a step needs.

    Raises:
        DownloadError: With both numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DownloadError(
            f"not enough space on the disk of {folder}",
            expected=f"{needed_bytes:,} free bytes",
            received=f"{free:,}",
            remedy="free some space, or name a folder on another disk",
        )


@contextmanager
def disk_errors_in_words(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses inside the block into a `DownloadError`."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        place = error.filename or folder
        raise DownloadError(
            f"not enough space on the disk of {folder}" if full else f"{place} cannot be used",
            received=error.strerror or str(error),
            remedy="free some space, or name another folder" if full else "name another place",
        ) from error
