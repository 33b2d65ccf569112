"""The dataset is found wherever people put it; what is there instead is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from breakhis_search.data.location import find_dataset_root
from breakhis_search.errors import DatasetNotFoundError

TREE = "histology_slides/breast"


def make_tree(folder: Path) -> Path:
    """Return the breast folder below ``folder``."""
    (folder / TREE / "benign" / "SOB").mkdir(parents=True)
    return folder / TREE


@pytest.mark.parametrize("above", ["BreaKHis_v1", "BreaKHis_v1/BreaKHis_v1", "."])
def test_root_is_found_below_the_given_folder(tmp_path: Path, above: str) -> None:
    breast = make_tree(tmp_path / above)
    assert find_dataset_root(tmp_path) == breast


@pytest.mark.parametrize(
    "given", ["BreaKHis_v1", "BreaKHis_v1/histology_slides", f"BreaKHis_v1/{TREE}"]
)
def test_root_is_found_from_a_folder_inside(tmp_path: Path, given: str) -> None:
    breast = make_tree(tmp_path / "BreaKHis_v1")
    assert find_dataset_root(tmp_path / given) == breast


def test_root_is_found_from_the_outer_of_two_nested_folders(tmp_path: Path) -> None:
    breast = make_tree(tmp_path / "BreaKHis_v1" / "BreaKHis_v1")
    assert find_dataset_root(tmp_path / "BreaKHis_v1") == breast


def test_root_is_found_with_malignant_images_alone(tmp_path: Path) -> None:
    (tmp_path / TREE / "malignant" / "SOB").mkdir(parents=True)
    assert find_dataset_root(tmp_path) == tmp_path / TREE


def test_root_is_absolute_for_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breast = make_tree(tmp_path / "data" / "BreaKHis_v1")
    monkeypatch.chdir(tmp_path)
    assert find_dataset_root(Path("data")) == breast


def test_root_behind_a_link_is_where_the_link_points(tmp_path: Path) -> None:
    breast = make_tree(tmp_path / "store" / "BreaKHis_v1")
    (tmp_path / "data").symlink_to(tmp_path / "store")
    assert find_dataset_root(tmp_path / "data") == breast


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no such folder: .*nowhere"):
        find_dataset_root(tmp_path / "nowhere")


def test_file_instead_of_folder_is_said(tmp_path: Path) -> None:
    file = tmp_path / "BreaKHis_v1.tar.gz"
    file.write_bytes(b"123")
    with pytest.raises(DatasetNotFoundError, match=r"is a file, not a folder.*3 bytes.*unpack"):
        find_dataset_root(file)


def test_empty_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(DatasetNotFoundError, match="is empty"):
        find_dataset_root(tmp_path)


def test_folder_with_other_things_is_said_with_their_names(tmp_path: Path) -> None:
    for name in ("cats", "dogs", "e", "f"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"no BreaKHis in .*cats, dogs, e \(4 in all\)"):
        find_dataset_root(tmp_path)


def test_folder_with_the_archive_still_packed_is_told_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "BreaKHis_v1.tar.gz").touch()
    with pytest.raises(DatasetNotFoundError, match=r"unpack BreaKHis_v1\.tar\.gz here first"):
        find_dataset_root(tmp_path)


def test_tree_that_was_not_unpacked_to_the_end_is_said(tmp_path: Path) -> None:
    (tmp_path / "BreaKHis_v1" / "histology_slides").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match="the last time was not finished"):
        find_dataset_root(tmp_path)


def test_folder_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "listdir", refuse)  # root may read everything, so permissions cannot
    monkeypatch.setattr(os, "scandir", refuse)  # be taken away for real; Path.iterdir uses either
    with pytest.raises(DatasetNotFoundError, match="cannot be read; received Permission denied"):
        find_dataset_root(tmp_path)
