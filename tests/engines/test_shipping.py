"""Files that nodes fetch from the driver's machine."""

from __future__ import annotations

from typing import Any

import pytest

from breakhis_search.engines.shipping import Shelf, fetch
from breakhis_search.errors import EngineError


def test_fetch_that_was_cut_off_goes_on(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("breakhis_search.engines.shipping.CHUNK_BYTES", 2000)
    shelf, asked = Shelf(folder), []

    def reads(names: Any) -> dict[str, bytes]:
        asked.append(list(names))
        if len(asked) == 2:
            raise ConnectionError
        return shelf.read(names)

    target = tmp_path / "copy"
    with pytest.raises(ConnectionError):
        fetch(shelf.listing(), reads, target)
    fetch(shelf.listing(), reads, target)
    assert [len(names) for names in asked] == [2, 2, 2, 1]
    assert fetch(shelf.listing(), reads, target) == target
    assert len(asked) == 4, "what is complete is not asked for again"


def test_shelf_gives_nothing_else(folder) -> None:
    for name in ("secret.env", "../data/secret.env", "/etc/passwd"):
        with pytest.raises(EngineError, match="not to be had"):
            Shelf(folder).read([name])


def test_linked_images_and_folders_are_given_as_they_are_listed(folder, tmp_path) -> None:
    elsewhere = tmp_path / "store"
    elsewhere.mkdir()
    (elsewhere / "a1b2").write_bytes(b"linked")
    (folder / "linked.png").symlink_to(elsewhere / "a1b2")
    (elsewhere / "inside.png").write_bytes(b"inside")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    shelf = Shelf(folder)
    names = [item.name for item in shelf.listing()]
    assert [name for name in names if "linked" in name] == ["linked.png", "linked/inside.png"]
    assert len(names) == 7
    copy = fetch(shelf.listing(), shelf.read, tmp_path / "copy")
    assert (copy / "linked.png").read_bytes() == b"linked"
    assert (copy / "linked" / "inside.png").read_bytes() == b"inside"


def test_damaged_file_of_the_right_size_is_fetched_again(folder, tmp_path) -> None:
    shelf, asked = Shelf(folder), []

    def reads(names: Any) -> dict[str, bytes]:
        asked.append(list(names))
        return shelf.read(names)

    copy = fetch(shelf.listing(), reads, tmp_path / "copy")
    damaged = copy / "BreaKHis_v1" / "3.png"
    damaged.write_bytes(bytes(1000))
    fetch(shelf.listing(), reads, copy)
    assert asked[1:] == [["BreaKHis_v1/3.png"]]
    assert damaged.read_bytes() == bytes([3]) * 1000


def test_what_arrives_otherwise_than_listed_is_refused(folder, tmp_path) -> None:
    shelf = Shelf(folder)
    with pytest.raises(EngineError, match="0.png is not what it was.*expected sha256"):
        fetch(shelf.listing(), lambda names: dict.fromkeys(names, b"other"), tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("*.png"))
