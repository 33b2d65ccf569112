"""Data and weights for nodes that do not have them, a few megabytes at a time."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from breakhis_search.errors import EngineError

CHUNK_BYTES = 32 * 2**20
_SUFFIXES = {".png", ".txt", ".csv", ".h5", ".keras"}

Read = Callable[[Sequence[str]], dict[str, bytes]]


class Item(NamedTuple):
    """A file that may be asked for.

    Attributes:
        name: Its path, relative to the shelf.
        size: In bytes.
        sha256: Of its content, hex.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Shelf:
    """The files of a folder that may be asked for: images, lists of folds, weights.

    Links are followed, as the catalog follows them: who links images into a folder means them.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    def listing(self) -> list[Item]:
        """Return every file, sorted by name; each is read once for its digest."""
        files = ((name, self.folder / name) for name in sorted(self._names))
        return [Item(name, file.stat().st_size, _sha256(file)) for name, file in files]

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of some files.

        Raises:
            EngineError: A name is not on the list.
        """
        for name in names:
            if name not in self._names:
                raise EngineError(f"{name} is not to be had here")
        return {name: (self.folder / name).read_bytes() for name in names}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(_walk(self.folder))


def _walk(folder: Path) -> Iterator[str]:
    """Yield the relative path of every file; links are followed, never in a circle."""
    seen = {folder.resolve()}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        real = {name: (here / name).resolve() for name in sorted(subfolders)}
        subfolders[:] = [name for name, place in real.items() if place not in seen]
        seen.update(real.values())
        files = (here / name for name in names if Path(name).suffix in _SUFFIXES)
        yield from (file.relative_to(folder).as_posix() for file in files if file.is_file())


def fetch(listing: Sequence[Item], read: Read, target: Path) -> Path:
    """Bring files over into a folder; what is there already, and whole, stays.

    Every file appears under its name when it is whole, so that a fetch that was cut off goes on.
    What is there is read again every time: a node that lost its power may have kept a file's size
    and not its content.

    Args:
        listing: What is to be there.
        read: Gives the content of some of them.
        target: The folder.

    Returns:
        The folder.

    Raises:
        EngineError: What comes is not what the listing says.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanting = {item.name: item for item in listing if not _is_there(target / item.name, item)}
    for names in _chunks(list(wanting.values())):
        for name, content in read(names).items():
            _check(wanting[name], content)
            _put(target / name, content)
    return target


def _is_there(file: Path, item: Item) -> bool:
    return file.is_file() and file.stat().st_size == item.size and _sha256(file) == item.sha256


def _check(item: Item, content: bytes) -> None:
    received = hashlib.sha256(content).hexdigest()
    if received != item.sha256:
        raise EngineError(
            f"{item.name} is not what it was when the run began",
            expected=f"sha256 {item.sha256[:16]}…",
            received=f"{received[:16]}…",
            remedy="leave data and weights alone while nodes fetch them, and run it again",
        )


def _put(file: Path, content: bytes) -> None:
    """Write a file that others see only when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    part.write_bytes(content)
    part.replace(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _chunks(listing: Sequence[Item]) -> Iterator[list[str]]:
    names: list[str] = []
    total = 0
    for item in listing:
        if names and total + item.size > CHUNK_BYTES:
            yield names
            names, total = [], 0
        names.append(item.name)
        total += item.size
    if names:
        yield names
