"""An archive is unpacked whole or not at all, and never outside its folder."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.data import disk
from breakhis_search.data.catalog import read_catalog
from breakhis_search.data.unpacking import extract_archive
from breakhis_search.errors import DownloadError

IMAGE = (
    "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/"
    "SOB_B_A-14-22549AB-100-001.png"
)


def make_archive(archive: Path, files: dict[str, bytes], *links: tarfile.TarInfo) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for link in links:
            tar.addfile(link)
    return archive


def make_link(name: str, to: str, kind: bytes) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, to
    return link


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def test_archive_becomes_a_folder_that_the_catalog_reads(tmp_path: Path) -> None:
    png = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    archive = make_archive(tmp_path / "a.tar.gz", {IMAGE: png})
    assert extract_archive(archive, tmp_path / "data") == tmp_path / "data" / "BreaKHis_v1"
    catalog = read_catalog(tmp_path / "data", cache_dir=tmp_path / "cache")
    assert len(catalog.table) == 1


def test_archive_may_lie_in_the_folder_it_is_unpacked_to(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"})
    extract_archive(archive, tmp_path)
    assert names_in(tmp_path) == ["BreaKHis_v1", "a.tar.gz"]


def test_names_that_begin_with_a_dot_folder_are_understood(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"./BreaKHis_v1/a.txt": b"a"})
    assert extract_archive(archive, tmp_path / "data").name == "BreaKHis_v1"


def test_what_macos_adds_at_the_top_is_left_out(tmp_path: Path) -> None:
    files = {"._BreaKHis_v1": b"mac", "BreaKHis_v1/a.txt": b"a"}
    extract_archive(make_archive(tmp_path / "a.tar.gz", files), tmp_path / "data")
    assert names_in(tmp_path / "data") == ["BreaKHis_v1"]


@pytest.mark.parametrize(
    "name",
    ["../outside.txt", "BreaKHis_v1/../../outside.txt", "/tmp/outside.txt"],  # noqa: S108
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_member_outside_its_folder_is_refused_and_nothing_kept(
    tmp_path: Path, name: str, place: str
) -> None:
    files = {"BreaKHis_v1/a.txt": b"a", name: b"evil"}
    order = reversed(files) if place == "first" else files
    archive = make_archive(tmp_path / "a.tar.gz", {key: files[key] for key in order})
    with pytest.raises(DownloadError, match="not safe to unpack"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []
    assert names_in(tmp_path) == ["a.tar.gz", "data"]


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "a.txt"),
        (tarfile.LNKTYPE, "BreaKHis_v1/a.txt"),
    ],
)
def test_link_is_refused_and_nothing_kept(tmp_path: Path, kind: bytes, to: str) -> None:
    link = make_link("BreaKHis_v1/link", to, kind)
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"}, link)
    with pytest.raises(DownloadError, match=r"not safe to unpack.*'BreaKHis_v1/link' is a link to"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_device_is_refused(tmp_path: Path) -> None:
    device = make_link("BreaKHis_v1/null", "", tarfile.CHRTYPE)
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"}, device)
    with pytest.raises(DownloadError, match="not safe to unpack"):
        extract_archive(archive, tmp_path / "data")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_archive_cut_short_is_refused_and_nothing_kept(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a": noise, "BreaKHis_v1/b": noise})
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DownloadError, match=r"damaged or not a \.tar\.gz.*fetch it again"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_archive_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a": noise})
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DownloadError, match="damaged or not"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_text("<html>Please log in</html>")
    with pytest.raises(DownloadError, match=r"damaged or not a \.tar\.gz"):
        extract_archive(tmp_path / "a.tar.gz", tmp_path / "data")


def test_missing_archive_is_said(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"none\.tar\.gz cannot be used; received No such file"):
        extract_archive(tmp_path / "none.tar.gz", tmp_path / "data")


@pytest.mark.parametrize("files", [{}, {"a.txt": b"a"}, {"a/1": b"", "b/2": b""}])
def test_archive_of_another_shape_is_refused_and_nothing_kept(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(DownloadError, match="expected one folder"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "data" / "BreaKHis_v1" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/mine.txt": b"theirs"})
    with pytest.raises(DownloadError, match="BreaKHis_v1 is there already"):
        extract_archive(archive, tmp_path / "data")
    assert mine.read_text() == "mine"


def test_leavings_of_an_interrupted_start_are_cleared(tmp_path: Path) -> None:
    left = tmp_path / "data" / ".a.tar.gz.unpacking" / "BreaKHis_v1"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"half")
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"})
    folder = extract_archive(archive, tmp_path / "data")
    assert names_in(folder) == ["a.txt"]
    assert names_in(tmp_path / "data") == ["BreaKHis_v1"]


def test_full_disk_is_said_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"})
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match="not enough space on the disk"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_disk_that_fills_up_while_unpacking_is_said_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"BreaKHis_v1/a.txt": b"a"})

    def fill_up(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", fill_up)
    with pytest.raises(DownloadError, match=r"not enough space on the disk of .*data"):
        extract_archive(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []
