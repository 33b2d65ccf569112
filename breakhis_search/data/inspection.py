"""What reading each image file gave, kept between starts so that no file is read twice."""

from __future__ import annotations

import hashlib
import json
import stat
import tempfile
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from breakhis_search.data.checks import ProblemKind
from breakhis_search.data.images import ImageDecodeError, decode_rgb
from breakhis_search.data.near_duplicates import perceptual_hash
from breakhis_search.errors import DataError

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

_CACHE_VERSION = 2  # raised when a file would be judged otherwise, or more is found in it


@dataclass(frozen=True)
class Finding:
    """What reading one file gave: hashes and size of the picture, or a problem.

    Attributes:
        size: Bytes of the file when it was read.
        mtime_ns: Its time of change, in nanoseconds.
        sha256: Hash of the file, hex.
        pixel_sha256: Hash of the decoded RGB pixels and their shape, hex: equal for equal pictures,
            however they are compressed.
        perceptual_hash: 64 bits, hex: nearly equal for pictures that look alike; empty for one
            without content.
        width_px: Columns of the picture.
        height_px: Rows of the picture.
        kind: What is wrong with the file, if anything.
        detail: The same in words.
    """

    size: int = -1
    mtime_ns: int = -1
    sha256: str = ""
    pixel_sha256: str = ""
    perceptual_hash: str = ""
    width_px: int = 0
    height_px: int = 0
    kind: ProblemKind | None = None
    detail: str = ""


def inspect_files(
    root: Path, paths: Sequence[str], *, cache_dir: Path, progress: Progress | None = None
) -> dict[str, Finding]:
    """Return what is known of every image, reading only those that are new or changed.

    Args:
        root: The dataset root.
        paths: Images, relative to the root.
        cache_dir: Findings are kept in its folder ``catalog``, in one file per root.
        progress: Called with (images done, images in all).

    Raises:
        DataError: The findings cannot be kept.
    """
    cache_file = cache_dir / "catalog" / f"{_digest(str(root).encode())[:16]}.json"
    known = _load_findings(cache_file)
    findings = {path: known[path] for path in paths if _is_fresh(root / path, known.get(path))}
    new = [path for path in paths if path not in findings]
    report = progress or _ignore
    report(len(findings), len(paths))
    if new:
        _require_writable(cache_file.parent)
        try:
            with closing(_read_all(root, new)) as readings:
                for path, finding in readings:
                    findings[path] = finding
                    report(len(findings), len(paths))
        finally:  # what was read before an interruption is not read again
            _save_findings(cache_file, findings)
    return {path: findings[path] for path in paths}


def _ignore(_done: int, _total: int) -> None:
    """Show no progress."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_all(root: Path, paths: Sequence[str]) -> Generator[tuple[str, Finding], None, None]:
    """Yield findings as they come; threads help, as OpenCV and hashlib release Python's lock."""
    pool = ThreadPoolExecutor()
    tasks = {pool.submit(_read_one, root / path): path for path in paths}
    try:
        for task in as_completed(tasks):
            yield tasks[task], task.result()
    finally:  # on Ctrl-C, do not read the rest of four gigabytes first
        pool.shutdown(wait=True, cancel_futures=True)


def _read_one(file: Path) -> Finding:
    """Return hashes and size of one image, or its problem."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe would wait for ever
            return Finding(kind="unreadable", detail="not a regular file")
        data = file.read_bytes()
    except OSError as error:
        return Finding(kind="unreadable", detail=error.strerror or str(error))
    seen = Finding(size=status.st_size, mtime_ns=status.st_mtime_ns)
    try:
        pixels = decode_rgb(data)
    except ImageDecodeError as error:
        return replace(seen, kind=error.fault, detail=str(error))
    height_px, width_px = pixels.shape[:2]
    return replace(
        seen,
        sha256=_digest(data),
        pixel_sha256=_digest(f"{height_px}x{width_px}:".encode() + pixels.tobytes()),
        perceptual_hash=perceptual_hash(pixels),
        width_px=width_px,
        height_px=height_px,
    )


def _is_fresh(file: Path, finding: Finding | None) -> bool:
    """Return whether a file is as it was when read; what could not be read is tried again."""
    if finding is None or finding.kind == "unreadable":
        return False
    try:
        status = file.stat()
    except OSError:
        return False  # reading it will say why
    return (status.st_size, status.st_mtime_ns) == (finding.size, finding.mtime_ns)


def _load_findings(cache_file: Path) -> dict[str, Finding]:
    """Return the findings of earlier starts; none if there are none, or the file is of no use."""
    try:
        content = json.loads(cache_file.read_text(encoding="utf-8"))
        if content["version"] != _CACHE_VERSION:
            return {}
        return {path: Finding(**fields) for path, fields in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # everything can be found again by reading the images


def _save_findings(cache_file: Path, findings: Mapping[str, Finding]) -> None:
    """Write all findings; a reader sees the old file or the new one, never half."""
    files = {path: asdict(findings[path]) for path in sorted(findings)}
    content = json.dumps({"version": _CACHE_VERSION, "files": files})
    part = cache_file.with_name(f"{cache_file.stem}-{uuid.uuid4().hex}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(cache_file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cache_error(cache_file.parent, error) from error


def _require_writable(folder: Path) -> None:
    """Raise before minutes of reading if their result could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cache_error(folder, error) from error


def _cache_error(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the image catalog cannot be kept in {folder}",
        expected="a folder that can be written to",
        received=error.strerror or str(error),
        remedy="set BREAKHIS_CACHE to another folder",
    )
