"""Data and weights for nodes that do not have them, a few megabytes at a time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from breakhis_search.errors import EngineError

CHUNK_BYTES = 32 * 2**20
_SUFFIXES = {".png", ".txt", ".csv", ".h5", ".keras"}
_COMPLETE = ".complete"

Read = Callable[[Sequence[str]], dict[str, bytes]]


@dataclass(frozen=True)
class Shelf:
    """The files of a folder that may be asked for: images, lists of folds, weights.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    def listing(self) -> list[tuple[str, int]]:
        """Return relative path and size in bytes of every file, sorted."""
        files = (f for f in self.folder.rglob("*") if f.suffix in _SUFFIXES and f.is_file())
        return sorted((f.relative_to(self.folder).as_posix(), f.stat().st_size) for f in files)

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of some files.

        Raises:
            EngineError: A name is not on the list.
        """
        root = self.folder.resolve()
        content = {}
        for name in names:
            file = (root / name).resolve()
            if not file.is_relative_to(root) or file.suffix not in _SUFFIXES:
                raise EngineError(f"{name} is not to be had here")
            content[name] = file.read_bytes()
        return content


def fetch(listing: Sequence[tuple[str, int]], read: Read, target: Path) -> Path:
    """Bring files over into a folder, once; what is there already stays.

    Every file appears under its name when it is whole, so that a fetch that was cut off goes on.
    Whether they are the right ones is for the fingerprint of the study to say.

    Args:
        listing: Relative path and size of each.
        read: Gives the content of some of them.
        target: The folder.

    Returns:
        The folder.
    """
    if (target / _COMPLETE).exists():
        return target
    for names in _chunks([(n, size) for n, size in listing if not _is_there(target / n, size)]):
        for name, content in read(names).items():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
            part.write_bytes(content)
            part.replace(file)
    target.mkdir(parents=True, exist_ok=True)
    (target / _COMPLETE).touch()
    return target


def _is_there(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _chunks(listing: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    names: list[str] = []
    total = 0
    for name, size in listing:
        if names and total + size > CHUNK_BYTES:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names
