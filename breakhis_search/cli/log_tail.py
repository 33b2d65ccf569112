"""What worker processes write into their logs, shown while they write it (``--verbose``)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from breakhis_search.cli import console

_LOOK_EVERY_S = 0.5


class LogTail:
    """Prints new lines of files on standard error until it is closed.

    Args:
        files: Log files; those that are not there yet are waited for.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._ends = {file: file.stat().st_size if file.is_file() else 0 for file in files}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log tail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Print what is left and stop."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        for file, end in self._ends.items():
            with suppress(OSError), file.open("rb") as log:  # the run itself tells of a bad disk
                log.seek(end)
                lines = log.read()
                self._ends[file] = end + len(lines)
                for line in lines.decode(errors="replace").splitlines():
                    console.print_log_line(file.stem, line)
