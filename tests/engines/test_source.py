"""What nodes ask for beside the driver."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.engines.shipping import Shelf
from breakhis_search.engines.source import Source
from breakhis_search.study.storage import StudyVersion


def version(name: str) -> StudyVersion:
    return StudyVersion(name, "digest", is_new=True, earlier=())


def test_first_study_that_is_opened_is_the_one_of_the_run() -> None:
    source = Source({})
    assert source.opened() is None
    assert source.open(version("binary@v2")).name == "binary@v2"
    assert source.open(version("binary@v3")).name == "binary@v2"
    assert source.opened() == version("binary@v2")


def test_files_are_named_by_their_content(tmp_path: Path) -> None:
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(content)
    a, b, c = (Source({"data": Shelf(tmp_path / name)}).listing("data")[0] for name in "abc")
    assert a == b
    assert a != c
