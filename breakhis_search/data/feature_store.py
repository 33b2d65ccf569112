"""Features of a frozen backbone, computed once: a memory-mapped store shared by trials and studies.

Each combination of backbone, weights, image size, views and preparation has a folder of its own:

* ``key.json``: what the features are of, in full;
* ``features.f32``: one record per image, float32 [views, d], appended and never changed;
* ``index.json``: sha256 of an image → number of its record and checksum of its bytes.

A record counts once the index names it, and the index is replaced in one step after the record is
on the disk, every half a minute: a writer that dies leaves bytes that nobody names and the next one
writes over. One writer at a time has the lock; who waits finds the work done. Readers need no lock.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from breakhis_search.data.eviction import evict, writer_lock
from breakhis_search.durability import replace_file
from breakhis_search.errors import DataError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Compute = Callable[[IntArray], Iterator[FloatArray]]

MAX_BYTES = 20 * 10**9
"""Of all features together: the full set takes 0.2 to 0.4 GB for each backbone."""

SAVE_EVERY_S = 30.0
"""So much work a kill costs at most."""

_ATTEMPTS = 3


@dataclass(frozen=True)
class StoredFeatures:
    """The features of a study's images.

    Attributes:
        records: Memory map of all records, float32 [records, views, d].
        positions: Record of each image of the study, int64 [n].
    """

    records: FloatArray
    positions: IntArray

    @property
    def width(self) -> int:
        """Length d of a feature vector."""
        return int(self.records.shape[2])

    def take(self, rows: IntArray, views: IntArray | int) -> FloatArray:
        """Return one view of each of the given images, float32 [len(rows), d]."""
        features: FloatArray = self.records[self.positions[rows], views]
        return features


def open_features(
    cache_dir: Path,
    key: Mapping[str, object],
    sha256: Sequence[str],
    *,
    views: int,
    width: int,
    compute: Compute,
    max_bytes: int = MAX_BYTES,
) -> StoredFeatures:
    """Return the features of images; those that are not stored are computed and stored.

    Args:
        cache_dir: Where caches live.
        key: Everything the features depend on beside the images.
        sha256: Content digest of each image.
        views: Views of an image.
        width: Length d of a feature vector.
        compute: Given the positions in ``sha256`` of missing images, yields their features in that
            order, float32 [any, views, d] at a time.
        max_bytes: The least recently used folders are deleted above this size of all of them.

    Raises:
        DataError: The folder cannot be written or the disk is full.
    """
    store = _Store(cache_dir / "features" / _digest(key), views, width)
    try:
        records, index = store.open(key, sha256, compute)
    except OSError as error:
        raise DataError(
            f"the feature store {store.folder} cannot be written ({error.strerror})",
            expected="free, writable disk",
            remedy="free space, or set BREAKHIS_CACHE to another folder",
        ) from error
    evict(store.folder.parent, kept=store.folder, max_bytes=max_bytes)
    positions = np.array([index[digest][0] for digest in sha256], dtype=np.int64)
    return StoredFeatures(records, positions)


@dataclass(frozen=True)
class _Store:
    """One folder of features."""

    folder: Path
    views: int
    width: int

    @property
    def _records(self) -> Path:
        return self.folder / "features.f32"

    @property
    def _record_bytes(self) -> int:
        return 4 * self.views * self.width

    def open(
        self, key: Mapping[str, object], sha256: Sequence[str], compute: Compute
    ) -> tuple[FloatArray, dict[str, tuple[int, int]]]:
        """Return records and index with all of these images, computing what is missing."""
        for _ in range(_ATTEMPTS):
            records, index = self.read()
            if all(digest in index for digest in sha256):
                with suppress(OSError):  # of another user, to be read only
                    os.utime(self.folder)  # used now
                return records, index
            with writer_lock(self.folder):
                self.fill(key, sha256, compute)
        records, index = self.read()
        if any(digest not in index for digest in sha256):  # deleted, or damaged, every time
            raise OSError(errno.EIO, "what was written is not there")
        return records, index

    def read(self) -> tuple[FloatArray, dict[str, tuple[int, int]]]:
        """All records, and number and checksum of those whose bytes are what was written.

        Both are of one file: another process may delete the folder and fill it anew meanwhile.
        """
        try:
            index = json.loads((self.folder / "index.json").read_text())
            flat = np.memmap(self._records, dtype=np.float32, mode="r")
        except (OSError, ValueError):
            return np.zeros((0, self.views, self.width), np.float32), {}
        whole = flat.size // (self.views * self.width)
        records: FloatArray = flat[: whole * self.views * self.width]
        records = records.reshape(whole, self.views, self.width)
        return records, {
            digest: (number, checksum)
            for digest, (number, checksum) in index.items()
            if number < whole and zlib.crc32(records[number].tobytes()) == checksum
        }

    def fill(self, key: Mapping[str, object], sha256: Sequence[str], compute: Compute) -> None:
        """Append what is missing; the lock must be held."""
        _, index = self.read()  # another process may have done it while this one waited
        first = {digest: row for row, digest in reversed(list(enumerate(sha256)))}
        rows = sorted(row for digest, row in first.items() if digest not in index)
        if not rows:
            return
        (self.folder / "key.json").write_text(json.dumps(key, indent=1, sort_keys=True))
        end = 1 + max((number for number, _ in index.values()), default=-1)
        if shutil.disk_usage(self.folder).free < 1.05 * len(rows) * self._record_bytes:
            raise OSError(28, "No space left on device")
        with self._records.open("r+b" if self._records.exists() else "w+b") as file:
            file.truncate(end * self._record_bytes)  # what a writer that died left behind
            file.seek(0, os.SEEK_END)
            records = (record for part in compute(np.array(rows)) for record in part)
            saved = time.monotonic()
            try:
                for number, (row, record) in enumerate(zip(rows, records, strict=True), start=end):
                    content = np.ascontiguousarray(record, dtype=np.float32).tobytes()
                    file.write(content)
                    index[sha256[row]] = (number, zlib.crc32(content))
                    if time.monotonic() - saved > SAVE_EVERY_S:
                        self._save(file, index)
                        saved = time.monotonic()
            finally:  # what was computed is kept, however it ends
                self._save(file, index)

    def _save(self, file: IO[bytes], index: Mapping[str, tuple[int, int]]) -> None:
        file.flush()
        os.fsync(file.fileno())
        replace_file(self.folder / "index.json", json.dumps(index))
        os.utime(self.folder)


def _digest(key: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
