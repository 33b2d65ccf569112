"""What the nodes of a run ask for, beside the driver: files that they lack, the study to join."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache

from breakhis_search.engines.shipping import Item, Shelf
from breakhis_search.study.storage import StudyVersion


class Source:
    """An actor on the driver's machine.

    It outlives every node but the driver's own. So what a worker has to know when Ray builds its
    actor anew, from the arguments it was first built with, is kept here.

    Args:
        shelves: What there is to give, by what it is.
    """

    def __init__(self, shelves: dict[str, Shelf]) -> None:
        self._shelves = shelves
        self._listing_of = cache(lambda what: self._shelves[what].listing())
        self._version: StudyVersion | None = None

    def listing(self, what: str) -> tuple[str, list[Item]]:
        """Return a name for these very files, and each of them."""
        listing = self._listing_of(what)
        content = json.dumps([what, listing])
        return hashlib.sha256(content.encode()).hexdigest()[:24], listing

    def read(self, what: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of some files."""
        return self._shelves[what].read(names)

    def open(self, version: StudyVersion) -> StudyVersion:
        """Keep the study that was opened, and return the one that this run is at: the first."""
        self._version = self._version or version
        return self._version

    def opened(self) -> StudyVersion | None:
        """Return the study that this run is at, once there is one."""
        return self._version
