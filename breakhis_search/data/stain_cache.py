"""The stains of a study's images: estimated once, kept on disk, and brought to a fold's reference.

An image's own stains depend on nothing but its pixels, so all folds, trials and studies share them.
The reference is another matter: it is fitted to training images only, by whoever knows the fold.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from breakhis_search.data.stain import (
    StainFault,
    StainReference,
    Stains,
    apply_map,
    estimate_stains,
    reference_of,
    stain_map,
)
from breakhis_search.errors import DataError, TrialFailure
from breakhis_search.processes import usable_cores

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Images = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

_LAYOUT_VERSION = 1  # raise when the estimation changes


@dataclass(frozen=True)
class StainTable:
    """The stains of every image of a study, in the order of its rows.

    Attributes:
        vectors: Unit vectors of haematoxylin and eosin, float64 [n, 3, 2].
        maxima: Their maxima, float64 [n, 2].
        faults: Why an image's stains are not to be used, or empty, str [n].
    """

    vectors: npt.NDArray[np.float64]
    maxima: npt.NDArray[np.float64]
    faults: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.faults)

    def __getitem__(self, row: int) -> Stains:
        fault = cast("StainFault", str(self.faults[row]))
        return Stains(self.vectors[row], self.maxima[row], fault)

    def fit_reference(self, rows: IntArray) -> StainReference:
        """Return the typical staining of the given images: training images of one fold.

        The median of every number over the images whose stains are known, with the vectors brought
        back to unit length: one odd laboratory among the patients does not move it.

        Args:
            rows: Row positions.

        Raises:
            TrialFailure: None of these images shows two stains.
        """
        usable = rows[self.faults[rows] == ""]
        if not len(usable):
            raise TrialFailure(
                "no training image shows two stains that can be told apart",
                expected="haematoxylin and eosin",
                received=_counted(self.faults[rows]),
                remedy="pin preprocessing/stain to none in the study's space",
            )
        vectors = np.median(self.vectors[usable], axis=0)
        vectors = vectors / np.linalg.norm(vectors, axis=0)
        return reference_of(vectors, np.median(self.maxima[usable], axis=0))


class NormalizedImages:
    """Images brought to one reference as they are asked for: half a millisecond each, none kept.

    Stands where the array of a study's images stands, as far as rows are taken from it.

    Args:
        images: All images, uint8 [n, h, w, 3].
        table: Their stains.
        reference: What they are brought to.
    """

    def __init__(self, images: Images, table: StainTable, reference: StainReference) -> None:
        self.reference = reference
        self.shape = images.shape
        self.dtype = images.dtype
        self._images = images
        self._maps = [stain_map(table[row], reference) for row in range(len(table))]
        self._pool = ThreadPoolExecutor(usable_cores())  # OpenCV releases the interpreter lock

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: IntArray) -> Images:
        """Return the images of some rows, normalised, uint8 [len(rows), h, w, 3]."""
        maps = [self._maps[row] for row in rows]
        return np.stack(list(self._pool.map(apply_map, self._images[rows], maps)))


def open_stain_cache(
    images: Images,
    sha256: Sequence[str],
    *,
    cache_dir: Path,
    progress: Progress | None = None,
) -> StainTable:
    """Return the stains of all images of a study.

    They are kept under ``cache_dir`` by the content of the images and the size they are seen at,
    and appear there only when complete, so that a second writer does no harm.

    Args:
        images: As the models see them, uint8 [n, h, w, 3].
        sha256: Content digest of each image file.
        cache_dir: Where caches live.
        progress: Called with (images done, images in all).

    Raises:
        DataError: The cache folder cannot be written.
    """
    target = cache_dir / "stains" / f"{_key(sha256, images.shape[1:3])}.npz"
    table = _read(target, len(images))
    if table is None:
        table = _estimate_all(images, progress)
        _write(target, table)
    return table


def _key(sha256: Sequence[str], size_px: tuple[int, ...]) -> str:
    content = json.dumps([_LAYOUT_VERSION, *size_px, list(sha256)])
    height_px, width_px = size_px
    return f"{height_px}x{width_px}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"


def _read(target: Path, n: int) -> StainTable | None:
    """The table of a file, or ``None`` where there is none that is whole."""
    try:
        with target.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            table = StainTable(stored["vectors"], stored["maxima"], stored["faults"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return table if len(table) == n else None


def _estimate_all(images: Images, progress: Progress | None) -> StainTable:
    found = []
    # NumPy and OpenCV release the interpreter lock in all that takes time here.
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, stains in enumerate(pool.map(estimate_stains, images), start=1):
            found.append(stains)
            if progress:
                progress(done, len(images))
    table = StainTable(
        np.stack([s.vectors for s in found]),
        np.stack([s.maxima for s in found]),
        np.array([s.fault for s in found], dtype=np.str_),
    )
    if (table.faults != "").any():
        logger.warning("stains left as they are: %s", _counted(table.faults))
    return table


def _counted(faults: npt.NDArray[np.str_]) -> str:
    """How many images have which fault, such as ``2 × one_stain of 341 images``."""
    counts = Counter(fault for fault in faults.tolist() if fault)
    parts = [f"{count} × {fault}" for fault, count in sorted(counts.items())]
    return f"{', '.join(parts) or 'none'} of {len(faults)} images"


def _write(target: Path, table: StainTable) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, suffix=".part") as workshop:
            part = Path(workshop) / target.name
            np.savez(part, vectors=table.vectors, maxima=table.maxima, faults=table.faults)
            part.replace(target)
    except OSError as error:
        raise DataError(
            f"the stain cache {target.parent} cannot be written ({error.strerror})",
            expected="a writable folder",
            remedy="free space, or set BREAKHIS_CACHE to another folder",
        ) from error
