"""No image is read twice, and nothing stale is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.data import inspection
from breakhis_search.data.inspection import Finding, inspect_files
from breakhis_search.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with three images."""
    folder = tmp_path / "root"
    folder.mkdir()
    for i, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(folder / name, shade=i)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read since the test began."""
    names: list[str] = []
    read_one = inspection._read_one

    def count(file: Path) -> Finding:
        names.append(file.name)
        return read_one(file)

    monkeypatch.setattr(inspection, "_read_one", count)
    return names


PATHS = ("a.png", "b.png", "c.png")


def write_image(file: Path, shade: int, compression: int = 1) -> None:
    pixels = np.full((6, 9, 3), 40 * shade, np.uint8)
    options = [cv2.IMWRITE_PNG_COMPRESSION, compression]
    file.write_bytes(cv2.imencode(".png", pixels, options)[1].tobytes())


def the_cache_file(cache_dir: Path) -> Path:
    (file,) = cache_dir.rglob("*.*")
    return file


def test_second_start_reads_nothing(root: Path, tmp_path: Path, reads: list[str]) -> None:
    first = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert sorted(reads) == list(PATHS)
    reads.clear()
    assert inspect_files(root, PATHS, cache_dir=tmp_path / "cache") == first
    assert reads == []


def test_findings_state_size_and_hashes(root: Path, tmp_path: Path) -> None:
    finding = inspect_files(root, ["a.png"], cache_dir=tmp_path / "cache")["a.png"]
    assert (finding.width_px, finding.height_px, finding.kind) == (9, 6, None)
    assert len(finding.sha256) == len(finding.pixel_sha256) == 64


def test_equal_pixels_in_other_compression_have_equal_pixel_hash_only(
    root: Path, tmp_path: Path
) -> None:
    write_image(root / "b.png", shade=0, compression=9)
    found = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert found["a.png"].sha256 != found["b.png"].sha256
    assert found["a.png"].pixel_sha256 == found["b.png"].pixel_sha256
    assert found["a.png"].pixel_sha256 != found["c.png"].pixel_sha256


def test_equal_bytes_in_other_shape_have_other_pixel_hash(root: Path, tmp_path: Path) -> None:
    for name, shape in (("a.png", (4, 6, 3)), ("b.png", (6, 4, 3))):
        data = cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes()
        (root / name).write_bytes(data)
    found = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert found["a.png"].pixel_sha256 != found["b.png"].pixel_sha256


def test_changed_file_is_read_again(root: Path, tmp_path: Path, reads: list[str]) -> None:
    before = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    reads.clear()
    write_image(root / "b.png", shade=5)
    os.utime(root / "b.png", ns=(1, 1))
    after = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert reads == ["b.png"]
    assert after["b.png"].sha256 != before["b.png"].sha256


def test_added_file_alone_is_read(root: Path, tmp_path: Path, reads: list[str]) -> None:
    inspect_files(root, PATHS[:2], cache_dir=tmp_path / "cache")
    reads.clear()
    inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert reads == ["c.png"]


def test_bad_file_is_remembered_with_its_reason(
    root: Path, tmp_path: Path, reads: list[str]
) -> None:
    (root / "b.png").write_bytes((root / "b.png").read_bytes()[:-5])
    inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    reads.clear()
    found = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")["b.png"]
    assert found.kind == "truncated"
    assert "truncated PNG" in found.detail
    assert reads == []


def test_unreadable_file_is_tried_again(root: Path, tmp_path: Path, reads: list[str]) -> None:
    (root / "b.png").unlink()
    (root / "b.png").symlink_to(root / "not mounted.png")
    found = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")["b.png"]
    assert (found.kind, found.detail) == ("unreadable", "No such file or directory")
    reads.clear()
    write_image(root / "not mounted.png", shade=1)
    assert inspect_files(root, PATHS, cache_dir=tmp_path / "cache")["b.png"].kind is None
    assert reads == ["b.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes exist on POSIX only")
def test_named_pipe_is_not_waited_for(root: Path, tmp_path: Path) -> None:
    (root / "b.png").unlink()
    os.mkfifo(root / "b.png")
    found = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")["b.png"]
    assert (found.kind, found.detail) == ("unreadable", "not a regular file")


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"version": 1, "files": {"a.p',
        "[]",
        "null",
        '{"version": 1, "files": {"a.png": {"colour": 1}}}',
        '{"version": 1, "files": {"a.png": 7}}',
        '{"version": 0, "files": {}}',
        '{"version": 1}',
    ],
)
def test_corrupt_cache_file_is_rebuilt(
    root: Path, tmp_path: Path, reads: list[str], content: str
) -> None:
    first = inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    the_cache_file(tmp_path / "cache").write_text(content)
    reads.clear()
    assert inspect_files(root, PATHS, cache_dir=tmp_path / "cache") == first
    assert sorted(reads) == list(PATHS)
    kept = json.loads(the_cache_file(tmp_path / "cache").read_text())
    assert sorted(kept["files"]) == list(PATHS)


def test_two_roots_do_not_share_findings(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_image(other / "a.png", shade=6)
    one = inspect_files(root, ["a.png"], cache_dir=tmp_path / "cache")
    two = inspect_files(other, ["a.png"], cache_dir=tmp_path / "cache")
    assert one["a.png"].sha256 != two["a.png"].sha256
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 2


def test_interrupted_start_keeps_what_was_read(
    root: Path, tmp_path: Path, reads: list[str]
) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt("Ctrl-C")

    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        inspect_files(root, PATHS, cache_dir=tmp_path / "cache", progress=interrupt)
    reads.clear()
    inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert len(reads) == 1


def test_progress_counts_to_the_end(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    inspect_files(
        root, PATHS, cache_dir=tmp_path / "cache", progress=lambda *done: seen.append(done)
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_progress_of_a_warm_start_is_complete_at_once(root: Path, tmp_path: Path) -> None:
    inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    seen: list[tuple[int, int]] = []
    inspect_files(
        root, PATHS, cache_dir=tmp_path / "cache", progress=lambda *done: seen.append(done)
    )
    assert seen == [(3, 3)]


def test_cache_place_that_cannot_be_written_is_said_before_reading(
    root: Path, tmp_path: Path, reads: list[str]
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be kept.*to do: set BREAKHIS_CACHE"):
        inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert reads == []


def test_disk_that_fills_up_while_findings_are_kept_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fill_up)
    with pytest.raises(DataError, match="No space left on device"):
        inspect_files(root, PATHS, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "catalog").iterdir()) == []
