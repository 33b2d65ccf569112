"""A ``.tar.gz`` unpacked whole or not at all, and never outside its folder."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from breakhis_search.data.disk import disk_errors_in_words, require_space
from breakhis_search.errors import DownloadError


def extract_archive(archive: Path, folder: Path) -> Path:
    """Return the folder that a ``.tar.gz`` was unpacked to: ``folder`` / its one top folder.

    The archive is unpacked beside its place and then renamed, so that it is there whole or not at
    all. Members that would leave the folder, links and devices are refused.

    Args:
        archive: The ``.tar.gz`` file, with one top folder (``BreaKHis_v1``).
        folder: Where the top folder goes; made if needed.

    Raises:
        DownloadError: The archive is damaged, unsafe or of another shape; its folder is there
            already; or the disk is full.
    """
    archive, folder = Path(archive), Path(folder)
    workshop = folder / f".{archive.name}.unpacking"
    with disk_errors_in_words(folder), _archive_errors_in_words(archive):
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            _refuse_existing(tar, folder)  # before gigabytes are unpacked
            require_space(folder, archive.stat().st_size)  # PNG files do not shrink in an archive
            shutil.rmtree(workshop, ignore_errors=True)  # of a start that was cut off
            workshop.mkdir()
            try:
                tar.extractall(workshop, filter=_allow_member)  # noqa: S202 - members are checked
                _read_to_end(stream)
                top = _only_folder(workshop, archive)
                return top.rename(folder / top.name)
            finally:
                shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _archive_errors_in_words(archive: Path) -> Iterator[None]:
    """Turn what tarfile, gzip and zlib say of an archive into a `DownloadError`."""
    try:
        yield
    except tarfile.FilterError as error:
        raise DownloadError(
            f"the archive {archive} is not safe to unpack",
            expected="files and folders below one folder",
            received=str(error),
            remedy="do not use it; fetch it from its publisher",
        ) from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DownloadError(
            f"the archive {archive} is damaged or not a .tar.gz",
            received=str(error) or type(error).__name__,
            remedy="delete it and fetch it again",
        ) from error


def _read_to_end(stream: gzip.GzipFile) -> None:
    """Have gzip verify its checksum: it lies behind the last member, where tarfile stops."""
    while stream.read(1 << 20):
        continue


def _is_apple_double(name: str) -> bool:
    """Return whether macOS added this entry beside the real one (``._BreaKHis_v1``)."""
    return name.startswith("._")


def _refuse_existing(tar: tarfile.TarFile, folder: Path) -> None:
    """Raise if the archive's top folder is there already; unsafe names are not judged here."""
    tops = (PurePosixPath(member.name).parts[:1] for member in tar)
    top = next((top[0] for top in tops if top and not _is_apple_double(top[0])), "..")
    target = folder / top
    if top not in {"..", "/"} and target.exists():
        raise DownloadError(
            f"{target} is there already",
            expected="a free place",
            received="a folder" if target.is_dir() else "a file",
            remedy="use it as it is, or move it away first",
        )


def _allow_member(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Return the member, or raise: on top of Python's ``data`` filter, no links and no ``/…``."""
    if member.issym() or member.islnk():
        raise tarfile.FilterError(f"{member.name!r} is a link to {member.linkname!r}")
    if member.name.startswith("/"):
        raise tarfile.FilterError(f"{member.name!r} is an absolute path")
    return tarfile.data_filter(member, folder)


def _only_folder(workshop: Path, archive: Path) -> Path:
    """Return the one folder that was unpacked."""
    entries = sorted(entry for entry in workshop.iterdir() if not _is_apple_double(entry.name))
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    raise DownloadError(
        f"the archive {archive} is not the BreaKHis archive",
        expected="one folder (BreaKHis_v1) at its top",
        received=", ".join(entry.name for entry in entries[:3]) or "nothing",
        remedy="fetch BreaKHis_v1.tar.gz",
    )
