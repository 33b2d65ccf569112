"""Every image decoded and resized once: a uint8 memory map shared by trials and studies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from breakhis_search.data.eviction import evict
from breakhis_search.data.images import ImageDecodeError, prepare
from breakhis_search.errors import BadImagesError, DataError
from breakhis_search.processes import usable_cores

Progress = Callable[[int, int], None]
Images = npt.NDArray[np.uint8]

PIXELS_VERSION = 1
"""To be raised when decoding or resizing changes what the pixels are."""

MAX_BYTES = 20 * 10**9
"""Of all image caches together: the full set takes 0.6 GB at 128 × 192 px, 1.8 GB at 224 × 336."""


def open_image_cache(
    root: Path,
    paths: Sequence[str],
    sha256: Sequence[str],
    *,
    height_px: int,
    width_px: int,
    cache_dir: Path,
    progress: Progress | None = None,
    max_bytes: int = MAX_BYTES,
) -> Images:
    """Return all images as a read-only memory map, uint8 [n, height_px, width_px, 3], RGB 0–255.

    The map is kept under ``cache_dir`` by the content of the images (their sha256), not by their
    place, and appears there only when it is complete, so that an interrupted or a second writer
    does no harm.

    Args:
        root: Folder the paths are relative to.
        paths: The images, in the order of the rows.
        sha256: Content digest of each image.
        height_px: Height to resize to.
        width_px: Width to resize to.
        cache_dir: Where caches live.
        progress: Called with (images done, images in all).
        max_bytes: The least recently used maps are deleted above this size of all of them.

    Raises:
        BadImagesError: An image changed since it was catalogued.
        DataError: The cache folder cannot be written or the disk is full.
    """
    target = cache_dir / "images" / f"{_key(sha256, height_px, width_px)}.npy"
    shape = (len(paths), height_px, width_px, 3)
    if not _is_complete(target, shape):
        try:
            _write(target, root, paths, sha256, shape, progress)
        except OSError as error:
            raise DataError(
                f"the image cache {target.parent} cannot be written ({error.strerror})",
                expected=f"{_bytes(shape) / 1e6:,.0f} MB of free, writable disk",
                remedy="free space, or set BREAKHIS_CACHE to another folder",
            ) from error
    images: Images = np.load(target, mmap_mode="r", allow_pickle=False)
    with suppress(OSError):  # of another user, to be read only
        os.utime(target)  # used now
    evict(target.parent, kept=target, max_bytes=max_bytes)
    return images


def _key(sha256: Sequence[str], height_px: int, width_px: int) -> str:
    content = json.dumps([PIXELS_VERSION, height_px, width_px, list(sha256)])
    return f"{height_px}x{width_px}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"


def _is_complete(target: Path, shape: tuple[int, ...]) -> bool:
    """A readable header of the right shape, and all the bytes that it promises."""
    try:
        return bool(np.load(target, mmap_mode="r", allow_pickle=False).shape == shape)
    except (OSError, ValueError):
        return False


def _bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _write(
    target: Path,
    root: Path,
    paths: Sequence[str],
    sha256: Sequence[str],
    shape: tuple[int, ...],
    progress: Progress | None,
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < 1.05 * _bytes(shape):
        # Writing to a memory map of a full disk ends in SIGBUS, not in an exception: ask first.
        raise OSError(28, "No space left on device")
    part = target.parent / f"{uuid.uuid4().hex}.part"  # not a temporary file: others may read it
    try:
        images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        _decode_all(images, root, paths, sha256, progress)
        images.flush()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _decode_all(
    images: Images,
    root: Path,
    paths: Sequence[str],
    sha256: Sequence[str],
    progress: Progress | None,
) -> None:
    height_px, width_px = images.shape[1:3]

    def decode(row: int) -> None:
        try:
            content = (root / paths[row]).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256[row]:
                raise _changed(f"{paths[row]} is another file than was catalogued")
            images[row] = prepare(content, height_px, width_px)
        except (ImageDecodeError, OSError) as error:
            raise _changed(f"{paths[row]} cannot be decoded any more ({error})") from error

    # OpenCV releases the interpreter lock, so threads use every core.
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, _ in enumerate(pool.map(decode, range(len(paths))), start=1):
            if progress:
                progress(done, len(paths))


def _changed(what: str) -> BadImagesError:
    return BadImagesError(what, remedy="run `python -m breakhis_search data check`")
