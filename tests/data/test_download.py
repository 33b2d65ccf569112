"""The archive arrives whole over a server that breaks, ignores, refuses and lies."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from breakhis_search.data import disk, download
from breakhis_search.data.download import download_archive
from breakhis_search.errors import DownloadError

CONTENT = b"\x1f\x8b" + bytes(range(256)) * 300
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A file server on this machine whose misbehaviour can be set, and what it was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.last_modified: str | None = None
        self.honours_range = True
        self.honours_if_range = True
        self.sends_length = True
        self.shifts_range_by = 0
        self.statuses: list[int] = []  # answers before the first good one
        self.bytes_before_break: Iterator[int] = iter(())  # per request
        self.ranges: list[str | None] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/BreaKHis_v1.tar.gz"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def make_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.ranges.append(asked)
            if server.statuses:
                self.send_error(server.statuses.pop(0))
                return
            start = self.begin_answer(asked)
            body = server.content[start:]
            self.wfile.write(body[: next(server.bytes_before_break, len(body))])

        def begin_answer(self, asked: str | None) -> int:
            """Send the headers and return the offset of the body."""
            mark = server.etag or server.last_modified
            condition = self.headers.get("If-Range")
            same = not server.honours_if_range or condition in {None, mark}
            total, start = len(server.content), 0
            if asked and server.honours_range and same:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
                start += server.shifts_range_by
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            for name, value in (("ETag", server.etag), ("Last-Modified", server.last_modified)):
                if value:
                    self.send_header(name, value)
            if server.sends_length:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            return start

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "BreaKHis_v1.tar.gz"


def fetch(server: Server, target: Path, *, sha256: str | None = SHA256, attempts: int = 3) -> Path:
    return download_archive(
        server.url, target, sha256=sha256, attempts=attempts, backoff_s=0.0, timeout_s=5.0
    )


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_archive_arrives_whole_and_leaves_nothing_else(server: Server, target: Path) -> None:
    assert fetch(server, target) == target
    assert target.read_bytes() == CONTENT
    assert names_in(target.parent) == [target.name]


def test_archive_that_is_there_is_not_fetched_again(server: Server, target: Path) -> None:
    fetch(server, target)
    server.ranges.clear()
    assert fetch(server, target) == target
    assert server.ranges == []


def test_archive_that_is_there_but_another_is_refused_and_kept(
    server: Server, target: Path
) -> None:
    target.parent.mkdir()
    target.write_bytes(b"something of the user's")
    with pytest.raises(DownloadError, match=r"not the archive that was expected.*delete it"):
        fetch(server, target)
    assert target.read_bytes() == b"something of the user's"


def test_broken_connection_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    server.bytes_before_break = iter([30_000, 20_000])
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=30000-", "bytes=50000-"]


def test_later_start_goes_on_where_the_earlier_stopped(server: Server, target: Path) -> None:
    server.bytes_before_break = iter([30_000])
    with pytest.raises(DownloadError, match=r"30,000 of 76,802 bytes.*30,000 bytes are kept"):
        fetch(server, target, attempts=1)
    assert not target.exists()
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=30000-"]


def test_server_without_versions_is_resumed_by_length(server: Server, target: Path) -> None:
    server.etag = None
    server.bytes_before_break = iter([30_000])
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=30000-"]


def test_date_serves_as_version_where_the_etag_is_weak(server: Server, target: Path) -> None:
    server.etag, server.last_modified = None, "Sat, 01 Jan 2022 00:00:00 GMT"
    server.bytes_before_break = iter([30_000])
    fetch(server, target)
    assert server.ranges == [None, "bytes=30000-"]


def test_server_that_ignores_ranges_is_asked_for_everything_again(
    server: Server, target: Path
) -> None:
    server.honours_range = False
    server.bytes_before_break = iter([30_000])
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_server_that_ignores_ranges_and_always_breaks_is_given_up(
    server: Server, target: Path
) -> None:
    server.honours_range = False
    server.bytes_before_break = itertools.repeat(30_000)
    with pytest.raises(DownloadError, match="the connection broke at 30,000 of 76,802 bytes"):
        fetch(server, target, attempts=3)
    assert len(server.ranges) == 3


def test_headway_renews_the_attempts(server: Server, target: Path) -> None:
    server.bytes_before_break = itertools.repeat(8_000)  # ten breaks, but each brings something
    fetch(server, target, attempts=2)
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 10


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_file_that_changed_on_the_server_is_fetched_anew(
    server: Server, target: Path, honours_if_range: bool
) -> None:
    server.bytes_before_break = iter([30_000])
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch(server, target, attempts=1)
    server.content = b"\x1f\x8b" + b"new" * 25_600
    server.etag, server.honours_if_range = '"two"', honours_if_range
    fetch(server, target, sha256=hashlib.sha256(server.content).hexdigest())
    assert target.read_bytes() == server.content


def test_file_of_another_length_is_fetched_anew_where_versions_are_unknown(
    server: Server, target: Path
) -> None:
    server.etag = None
    server.bytes_before_break = iter([30_000])
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch(server, target, attempts=1)
    server.content = CONTENT[:2] + b"longer" * 20_000
    fetch(server, target, sha256=None)
    assert target.read_bytes() == server.content


def test_answer_that_begins_elsewhere_is_not_appended(server: Server, target: Path) -> None:
    server.bytes_before_break = iter([30_000])
    server.shifts_range_by = 100
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_part_of_unknown_version_is_not_trusted(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name(target.name + ".part").write_bytes(b"who knows what")
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_part_that_is_whole_needs_no_server(server: Server, target: Path) -> None:
    """As after a power cut between the last byte and the renaming."""
    target.parent.mkdir()
    part = target.with_name(target.name + ".part")
    part.write_bytes(CONTENT)
    version = {"mark": '"one"', "total": len(CONTENT)}
    part.with_name(part.name + ".version").write_text(json.dumps(version))
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == []
    assert names_in(target.parent) == [target.name]


def test_server_that_does_not_say_the_length_is_read_to_the_end(
    server: Server, target: Path
) -> None:
    server.sends_length = False
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_server_errors_that_pass_are_waited_for(server: Server, target: Path) -> None:
    server.statuses = [500, 503]
    fetch(server, target, attempts=3)
    assert target.read_bytes() == CONTENT


def test_waits_double_up_to_a_minute(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=waits.append))
    server.statuses = [500] * 9
    with pytest.raises(DownloadError, match="HTTP 500"):
        download_archive(server.url, target, sha256=None, attempts=9)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_server_error_that_stays_is_given_up(server: Server, target: Path) -> None:
    server.statuses = [500] * 9
    with pytest.raises(DownloadError, match=r"HTTP 500 .*\(3 attempts without headway\)"):
        fetch(server, target, attempts=3)
    assert len(server.statuses) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_final_at_once(server: Server, target: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(DownloadError, match=f"refuses the archive at .*received HTTP {status}"):
        fetch(server, target)
    assert len(server.ranges) == 1


def test_unreachable_host_is_said(server: Server, target: Path) -> None:
    server.stop()
    with pytest.raises(DownloadError, match=r"the host cannot be reached: .*refused.*the network"):
        fetch(server, target, attempts=2)


def test_unknown_host_is_said(target: Path) -> None:
    with pytest.raises(DownloadError, match="the host cannot be reached"):
        download_archive("http://no-such-host.invalid/a.tar.gz", target, sha256=None, attempts=1)


def test_other_file_than_expected_is_refused_and_nothing_kept(server: Server, target: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"expected sha256 {SHA256}; received sha256 "):
        fetch(server, target)
    assert names_in(target.parent) == []


def test_checksum_may_be_in_capitals(server: Server, target: Path) -> None:
    assert fetch(server, target, sha256=SHA256.upper()) == target


def test_page_instead_of_archive_is_refused_without_checksum(server: Server, target: Path) -> None:
    server.content = b"<html>Please log in to the hotel's network</html>"
    with pytest.raises(DownloadError, match=r"expected a \.tar\.gz file; .*b'<h'"):
        fetch(server, target, sha256=None)
    assert names_in(target.parent) == []


def test_full_disk_is_said_before_anything_is_written(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        DownloadError, match=r"not enough space .* expected 76,802 free bytes; received 1,000"
    ):
        fetch(server, target)
    assert not target.exists()


def test_resumed_download_needs_space_for_the_rest_alone(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.bytes_before_break = iter([70_000])
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch(server, target, attempts=1)
    usage = shutil.disk_usage("/")._replace(free=6_802)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_place_that_cannot_be_written_is_said_and_not_retried(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be used; received "):
        fetch(server, tmp_path / "file" / "BreaKHis_v1.tar.gz")
    assert server.ranges == []


def test_folder_in_the_place_of_the_archive_is_said(server: Server, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot be used; received Is a directory"):
        fetch(server, target)


def test_other_schemes_are_refused(target: Path) -> None:
    with pytest.raises(DownloadError, match="expected http:// or https://; received file:///etc"):
        download_archive("file:///etc/passwd", target, sha256=None)


def test_progress_counts_up_to_the_whole(server: Server, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download_archive(server.url, target, sha256=None, progress=lambda *done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_source_is_the_authors_university() -> None:
    assert download.SOURCE_URL == "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
