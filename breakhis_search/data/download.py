"""The published archive, fetched over connections that break.

It holds some four gigabytes, so a broken transfer goes on where it stopped (HTTP range requests),
also in a later start: what has come so far waits beside the target as ``….part``.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from breakhis_search.data.disk import disk_errors_in_words, require_space
from breakhis_search.data.unpacking import extract_archive
from breakhis_search.errors import DownloadError

__all__ = ["SOURCE_URL", "download_archive", "extract_archive"]

SOURCE_URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
"""Where UFPR, the authors' university, publishes the archive (as given on the dataset's page)."""

Progress = Callable[[int, int | None], None]
"""Called with (bytes here, bytes in all, or None where the server does not say)."""

_CHUNK_BYTES = 1 << 20
_PART_SUFFIX = ".part"
_GZIP_SIGNATURE = b"\x1f\x8b"
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 60.0


class _ConnectionBrokenError(Exception):
    """The transfer stopped in a way that another attempt may mend."""


class _PartOutdatedError(Exception):
    """What was fetched earlier does not fit what the server has now."""


@dataclass(frozen=True)
class _Version:
    """What the server says of the file, to know later whether it is still the same.

    Attributes:
        mark: A strong ETag, or the Last-Modified date; ``None`` if the server gives neither.
        total: Its bytes; ``None`` if the server does not say.
    """

    mark: str | None = None
    total: int | None = None


@dataclass(frozen=True)
class _Part:
    """An unfinished download: its bytes, and the version they belong to."""

    file: Path

    @property
    def _version_file(self) -> Path:
        return self.file.with_name(f"{self.file.name}.version")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def version(self) -> _Version | None:
        """The version; ``None`` if it was not kept, so that the bytes are of no use."""
        try:
            return _Version(**json.loads(self._version_file.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def begin(self, version: _Version) -> None:
        self.delete()
        self._version_file.write_text(json.dumps(asdict(version)), "utf-8")

    def delete(self) -> None:
        self.file.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)

    def finish(self, destination: Path) -> None:
        self.file.replace(destination)
        self._version_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Patience:
    """How long a server is asked."""

    attempts: int
    backoff_s: float
    timeout_s: float


def download_archive(
    url: str,
    destination: Path,
    *,
    sha256: str | None,
    progress: Progress | None = None,
    attempts: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 60.0,
) -> Path:
    """Return the archive at ``destination``, fetched now or found there complete.

    The file appears under its name only when it is whole and, where a checksum is given, right.
    No official checksum of BreaKHis is known to us: with ``sha256=None`` the caller has to unpack
    the archive (gzip has a checksum of its own) and to compare its counts with the published ones,
    as `breakhis_search.data.catalog.read_catalog` does.

    Args:
        url: Where the archive is, ``http://`` or ``https://``.
        destination: The file to write.
        sha256: Expected hash of the file, hex; ``None`` if unknown.
        progress: Called with (bytes here, bytes in all or None).
        attempts: Tries in a row that may bring nothing new before giving up.
        backoff_s: Wait before the second try, doubled with each further one, at most a minute.
        timeout_s: Longest silence of the server.

    Raises:
        DownloadError: The host cannot be reached, answers with an error, keeps breaking the
            connection, sends another file than expected; or the disk is full.
    """
    _check_scheme(url)
    destination = Path(destination)
    part = _Part(destination.with_name(destination.name + _PART_SUFFIX))
    with disk_errors_in_words(destination.parent):
        if destination.exists():
            _verify(destination, sha256, remedy="delete it, and fetch it again")
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        _fetch_persistently(url, part, progress, _Patience(attempts, backoff_s, timeout_s))
        try:
            _verify(part.file, sha256, remedy=f"check {url}; nothing of it was kept")
        except DownloadError:
            part.delete()
            raise
        part.finish(destination)
    return destination


def _check_scheme(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise DownloadError(
            "the archive's address cannot be used",
            expected="http:// or https://",
            received=url,
            remedy="give the address of the archive",
        )


def _fetch_persistently(
    url: str, part: _Part, progress: Progress | None, patience: _Patience
) -> None:
    """Fetch until the part is whole; give up after so many tries in a row without headway."""
    furthest, fruitless = part.size, 0
    while True:
        try:
            _fetch_once(url, part, progress, patience.timeout_s)
        except _PartOutdatedError:
            part.delete()
            reason = "the file on the server is another one than before"
        except _ConnectionBrokenError as error:
            reason = str(error)
        else:
            return
        # Compared with the furthest point ever: a server that always breaks at the same place and
        # does not honour ranges would otherwise be asked for ever.
        fruitless = 1 if part.size > furthest else fruitless + 1
        furthest = max(furthest, part.size)
        if fruitless >= patience.attempts:
            raise _given_up(url, reason, patience.attempts, part.size)
        time.sleep(min(patience.backoff_s * 2 ** (fruitless - 1), _LONGEST_WAIT_S))


def _given_up(url: str, reason: str, attempts: int, kept_bytes: int) -> DownloadError:
    kept = f"; {kept_bytes:,} bytes are kept and the next start goes on there" if kept_bytes else ""
    return DownloadError(
        f"the archive could not be fetched from {url}",
        received=f"{reason} ({attempts} attempts without headway)",
        remedy=f"check the network or the proxy and start again{kept}",
    )


def _fetch_once(url: str, part: _Part, progress: Progress | None, timeout_s: float) -> None:
    """Ask for what is missing and append it to the part."""
    version = part.version
    if version is None:
        part.delete()
    elif part.size and part.size == version.total:
        return  # whole already: an earlier start was cut off before it could say so
    with _open(url, part.size, version, timeout_s) as response:
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            total = _check_continuation(response, part)
        else:
            total = _content_length(response)
            part.begin(_Version(_version_mark(response), total))
        require_space(part.file.parent, (total or 0) - part.size)
        _append(response, part, total, progress)


def _open(
    url: str, start: int, version: _Version | None, timeout_s: float
) -> http.client.HTTPResponse:
    """Return the server's answer to a request for the bytes from ``start`` on."""
    request = urllib.request.Request(url, headers={"User-Agent": "breakhis-search"})  # noqa: S310 - http(s) only
    if start and version:
        request.add_header("Range", f"bytes={start}-")
        if version.mark:  # the server then sends the whole file if it is another one by now
            request.add_header("If-Range", version.mark)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            raise _judge_status(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise _ConnectionBrokenError(f"the host cannot be reached: {reason}") from error
    return response


def _judge_status(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return what an HTTP error means: start over, try again, or stop."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _PartOutdatedError()
    if error.code in _TRANSIENT_STATUS:
        return _ConnectionBrokenError(f"HTTP {error.code} {error.reason}")
    return DownloadError(
        f"the server refuses the archive at {url}",
        expected="HTTP 200",
        received=f"HTTP {error.code} {error.reason}",
        remedy="check the address; the dataset's page names the present one",
    )


def _check_continuation(response: http.client.HTTPResponse, part: _Part) -> int | None:
    """Return the bytes in all; raise if what comes does not continue what is there."""
    version = part.version or _Version()
    answer = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if answer is None or int(answer[1]) != part.size:
        raise _PartOutdatedError
    total = version.total if answer[2] == "*" else int(answer[2])
    if version.total not in {None, total} or version.mark != _version_mark(response):
        raise _PartOutdatedError
    return total


def _version_mark(response: http.client.HTTPResponse) -> str | None:
    """Return what If-Range may carry; weak ETags may not stand there (RFC 9110, 13.1.5)."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


def _content_length(response: http.client.HTTPResponse) -> int | None:
    length: str = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _append(
    response: http.client.HTTPResponse, part: _Part, total: int | None, progress: Progress | None
) -> None:
    """Add what comes to the part; raise if less comes than was announced."""
    received = part.size
    with part.file.open("ab") as file:
        while received != total and (chunk := _read_chunk(response)):
            file.write(chunk)
            received += len(chunk)
            if progress:
                progress(received, total)
    if total is not None and received != total:
        raise _ConnectionBrokenError(f"the connection broke at {received:,} of {total:,} bytes")


def _read_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)  # what has come, so that a break loses nothing
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionBrokenError(f"the connection broke: {error}") from error


def _verify(file: Path, sha256: str | None, *, remedy: str) -> None:
    """Raise unless the file has the expected hash or, where none is given, is gzip at all."""
    with file.open("rb") as stream:
        if sha256 is None:
            expected, start = "a .tar.gz file", stream.read(len(_GZIP_SIGNATURE))
            if start == _GZIP_SIGNATURE:
                return
            received = f"a file that begins with {start!r}"  # a portal's log-in page, for one
        else:
            expected = f"sha256 {sha256.lower()}"
            received = f"sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()}"
            if received == expected:
                return
    name = file.name.removesuffix(_PART_SUFFIX)
    raise DownloadError(
        f"{name} is not the archive that was expected",
        expected=expected,
        received=received,
        remedy=remedy,
    )
