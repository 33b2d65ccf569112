"""The image cache: decoded once, found again by content, never half there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.data import cache
from breakhis_search.data.images import read_rgb, resize_rgb
from breakhis_search.errors import BadImagesError, DataError

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def root(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES:
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    return tmp_path


@pytest.fixture
def catalogued(root) -> list[str]:
    """The digests of the files as they are now."""
    return digests(root)


def digests(root: Path) -> list[str]:
    return [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in NAMES]


def opened(root: Path, sha256: list[str] | None = None, **options) -> np.ndarray:
    size = {"height_px": 16, "width_px": 24, "cache_dir": root / "cache"} | options
    return cache.open_image_cache(root, NAMES, sha256 or digests(root), **size)


def test_images_are_those_of_the_one_code_path(root):
    images = opened(root)
    assert images.dtype == np.uint8
    for name, image in zip(NAMES, images, strict=True):
        np.testing.assert_array_equal(image, resize_rgb(read_rgb(root / name), 16, 24))


def test_a_second_opening_decodes_nothing(root, monkeypatch):
    opened(root)
    monkeypatch.setattr(cache, "prepare", lambda *_: pytest.fail("decoded again"))
    assert opened(root).shape == (3, 16, 24, 3)


def test_another_content_or_size_is_another_cache(root):
    first = opened(root).copy()
    cv2.imwrite(str(root / "a.png"), np.full((40, 60, 3), 7, np.uint8))
    changed = opened(root)
    assert (changed[0] == 7).all()
    np.testing.assert_array_equal(first[1], changed[1])
    assert opened(root, height_px=8).shape == (3, 8, 24, 3)


def test_a_cut_off_file_is_made_again(root):
    first = opened(root).copy()
    [file] = (root / "cache" / "images").glob("*.npy")
    file.write_bytes(file.read_bytes()[:500])
    np.testing.assert_array_equal(opened(root), first)


def test_an_image_that_broke_meanwhile_is_named_and_nothing_is_left(root):
    (root / "b.png").write_bytes(b"")
    with pytest.raises(BadImagesError, match="b.png cannot be decoded any more"):
        opened(root)
    assert list((root / "cache" / "images").iterdir()) == []


def test_an_image_that_was_exchanged_meanwhile_is_named_and_not_taken_for_the_old(root, catalogued):
    (root / "b.png").write_bytes((root / "a.png").read_bytes())
    with pytest.raises(BadImagesError, match="b.png is another file than was catalogued"):
        opened(root, catalogued)


def test_the_least_recently_used_images_are_deleted(root):
    opened(root)
    [first] = (root / "cache" / "images").glob("*.npy")
    os.utime(first, (1, 1))
    second = opened(root, height_px=8, max_bytes=1)
    assert not first.exists()
    assert second.shape == (3, 8, 24, 3)


def test_what_a_process_that_died_was_writing_is_deleted_in_time(root):
    opened(root)
    old, new = (root / "cache" / "images" / name for name in ("old.part", "new.part"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    opened(root)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_folder_that_cannot_be_made_is_one_clear_error(root):
    (root / "cache").write_text("a file")
    with pytest.raises(DataError, match="image cache .* cannot be written.*BREAKHIS_CACHE"):
        opened(root)


def test_progress_counts_to_the_end(root):
    seen = []
    opened(root, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
