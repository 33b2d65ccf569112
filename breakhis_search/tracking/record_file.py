"""A file of JSON lines that only grows, whatever happens to its writer or its disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breakhis_search.errors import JournalError

_LONGEST_END = 4096  # bytes; the record of an end has about 60


@dataclass(frozen=True)
class Record:
    """One line of a journal.

    Attributes:
        kind: ``run``, ``params``, ``metrics``, ``tags``, ``report``, ``artifacts``, ``model`` or
            ``finish``.
        body: What is to be recorded.
        end: Offset behind the line, in bytes: the cursor once it is delivered.
    """

    kind: str
    body: dict[str, Any]
    end: int


class RecordFile:
    """The records of one run, one line each; half a line is none.

    Args:
        path: The file; there or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_whole = False

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.is_file()

    def append(self, lines: bytes) -> None:
        """Write whole lines; they are on the disk when this returns, and none of them if it fails.

        Raises:
            OSError: The disk refuses.
        """
        self._drop_torn_line()
        size = self.path.stat().st_size if self.exists else 0
        try:
            with self.path.open("ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if self.exists:
                os.truncate(self.path, size)  # half of it on a full disk
            raise

    def read_from(self, start: int) -> Iterator[Record]:
        """Yield the records behind an offset in bytes; a half-written last line does not count.

        Raises:
            JournalError: A line is damaged.
        """
        if not self.exists:
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                if line.endswith(b"\n"):
                    yield self._read(line, file.tell())

    def last_line(self) -> bytes:
        """Return the last line, or the end of a very long one."""
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - _LONGEST_END))
            return (file.read().splitlines() or [b""])[-1]

    def readable(self) -> tuple[str, int]:
        """Return all lines that can be read, and how many others there are.

        What a killed writer left half-written is neither: it is cut off.
        """
        self._drop_torn_line()
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if self._is_readable(line)]
        return b"".join(kept).decode(), len(lines) - len(kept)

    def _drop_torn_line(self) -> None:
        """Cut off what a killed writer left half-written, once, before the first own line."""
        if not self._is_whole and self.exists:
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)
        self._is_whole = True

    def _read(self, line: bytes, end: int) -> Record:
        try:
            content = json.loads(line)
            return Record(content.pop("kind"), content, end)
        except (ValueError, KeyError) as error:
            raise JournalError(
                f"the journal {self.path} is damaged at byte {end - len(line)}",
                remedy="delete that line, or move the folder away; the other runs are not affected",
            ) from error

    def _is_readable(self, line: bytes) -> bool:
        with suppress(JournalError):
            self._read(line, len(line))
            return True
        return False
