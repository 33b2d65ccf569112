"""What a folder of images becomes: the table, the problems, the fingerprint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.catalog import (
    COLUMNS,
    Catalog,
    describe,
    fingerprint_of,
    read_catalog,
    table_from_names,
)
from breakhis_search.data.checks import canonical_path
from breakhis_search.data.taxonomy import TUMOR_TYPES, parse_image_name
from breakhis_search.errors import BadImagesError, DatasetNotFoundError

NAMES = (
    "SOB_B_A-14-22549AB-100-001.png",
    "SOB_B_A-14-22549CD-40-001.png",
    "SOB_M_DC-14-2523-400-001.png",
)


def encode(value: int, shape: tuple[int, ...] = (4, 6, 3)) -> bytes:
    return cv2.imencode(".png", np.full(shape, value, np.uint8))[1].tobytes()


def place_of(name: str) -> str:
    image = parse_image_name(name)
    assert image is not None
    return canonical_path(name, image)


class Tree:
    """A small BreaKHis tree on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "BreaKHis_v1" / "histology_slides" / "breast"
        self.cache_dir = folder / "cache"
        for i, name in enumerate(NAMES):
            self.put(place_of(name), encode(i))

    def put(self, path: str, data: bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def read(self) -> Catalog:
        return read_catalog(self.folder, cache_dir=self.cache_dir)

    def problems(self) -> list[tuple[str, str]]:
        """Return path and kind of every problem but the notice that the set is partial."""
        found = [(p.path, p.kind) for p in self.read().problems]
        assert (".", "partial_set") in found
        return [problem for problem in found if problem[0] != "."]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_table_states_what_names_and_files_say(tree: Tree) -> None:
    row = tree.read().table.iloc[0].to_dict()
    assert len(row.pop("sha256")) == len(row.pop("pixel_sha256")) == 64
    assert row.pop("perceptual_hash") == ""  # a picture of one shade has no content
    assert row == {
        "path": "benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/SOB_B_A-14-22549AB-100-001.png",
        "label": "benign",
        "type": "adenosis",
        "slide": "14-22549AB",
        "accession": "14-22549",
        "magnification": 100,
        "sequence": 1,
        "width_px": 6,
        "height_px": 4,
    }


def test_table_is_sorted_by_path_with_a_plain_index(tree: Tree) -> None:
    table = tree.read().table
    assert table["path"].is_monotonic_increasing
    assert table.index.equals(pd.RangeIndex(3))
    assert list(table.columns) == list(COLUMNS)


def test_sound_folder_has_the_notice_that_it_is_partial_alone(tree: Tree) -> None:
    catalog = tree.read()
    (problem,) = catalog.problems
    assert problem.detail == "partial set: 3 of 7,909 images, 3 of 82 slide folders"
    assert catalog.errors == ()
    assert not catalog.is_full_set


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        read_catalog(tmp_path / "nowhere", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not_an_image"),
        (encode(7)[:-20], "truncated"),
        (encode(7).replace(b"IDAT", b"IDAt"), "damaged"),
        (encode(7, shape=(4, 6)), "wrong_mode"),
        (encode(7, shape=(4, 6, 4)), "wrong_mode"),
    ],
)
def test_bad_image_is_an_error_and_no_row(tree: Tree, data: bytes, kind: str) -> None:
    path = place_of("SOB_B_F-14-9133-40-001.png")
    tree.put(path, data)
    assert tree.problems() == [(path, kind)]
    assert path not in set(tree.read().table["path"])
    assert len(tree.read().table) == 3


def test_dangling_link_is_unreadable(tree: Tree) -> None:
    path = place_of("SOB_B_A-14-22549AB-100-002.png")
    (tree.root / path).symlink_to(tree.folder / "not mounted")
    assert tree.problems() == [(path, "unreadable")]


def test_folder_that_cannot_be_listed_is_unreadable(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("400X"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    folder = place_of(NAMES[2]).rsplit("/", 1)[0]
    assert tree.problems() == [(folder, "unreadable")]


def test_misplaced_and_misnamed_images_are_errors_and_no_rows(tree: Tree) -> None:
    misplaced = place_of(NAMES[0]).replace("/100X/", "/200X/")
    misnamed = place_of(NAMES[0]).replace("-001.png", "-001 copy.png")
    tree.put(misplaced, encode(8))
    tree.put(misnamed, encode(9))
    assert tree.problems() == [(misnamed, "bad_name"), (misplaced, "contradicts_folder")]
    assert len(tree.read().table) == 3


def test_droppings_are_passed_over(tree: Tree) -> None:
    tree.put(".DS_Store", b"x")
    tree.put("benign/Thumbs.db", b"x")
    tree.put(place_of(NAMES[0]).replace("SOB_B_A-", "._SOB_B_A-"), b"x")
    tree.put("__MACOSX/benign/SOB_B_A-14-22549AB-100-001.png", b"x")
    assert tree.problems() == []


def test_unknown_file_is_a_notice(tree: Tree) -> None:
    tree.put("README.txt", b"read me")
    assert tree.problems() == [("README.txt", "unknown_file")]
    assert tree.read().errors == ()


def test_identical_pixels_are_a_notice_and_stay(tree: Tree) -> None:
    tree.put(place_of("SOB_M_DC-14-2985-400-001.png"), encode(2))  # as slide 14-2523
    assert tree.problems() == [(place_of(NAMES[2]), "duplicate_pixels")]
    assert len(tree.read().table) == 4


def test_identical_pixels_under_both_labels_leave_the_table(tree: Tree) -> None:
    benign, malignant = place_of(NAMES[0]), place_of("SOB_M_DC-14-2985-100-001.png")
    tree.put(malignant, encode(0))
    kind = "contradictory_pixels"
    assert tree.problems() == [(benign, kind), (malignant, kind)]
    assert set(tree.read().table["path"]) == {place_of(NAMES[1]), place_of(NAMES[2])}


def test_slide_under_two_types_is_a_notice(tree: Tree) -> None:
    for code in ("DC", "LC"):
        tree.put(place_of(f"SOB_M_{code}-14-13412-40-001.png"), encode(77))
    folder = "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-13412"
    assert tree.problems() == [(folder, "two_types")]
    assert len(tree.read().table) == 5


def test_linked_slide_folder_is_read(tree: Tree) -> None:
    slide = tree.root / place_of(NAMES[2]).rsplit("/", 2)[0]
    shutil.move(slide, tree.folder / "elsewhere")
    slide.symlink_to(tree.folder / "elsewhere")
    assert len(tree.read().table) == 3
    assert tree.problems() == []


def test_link_to_a_folder_above_is_not_followed_for_ever(tree: Tree) -> None:
    (tree.root / "benign" / "again").symlink_to(tree.root)
    assert tree.problems() == []


def test_problems_have_errors_first(tree: Tree) -> None:
    tree.put("a notice.txt", b"")
    tree.put("z.png", b"")
    assert [p.severity for p in tree.read().problems] == ["error", "notice", "notice"]


def test_require_usable_refuses_errors_with_count_names_and_remedy(tree: Tree) -> None:
    for i in range(2, 7):
        tree.put(place_of(f"SOB_B_A-14-22549AB-100-00{i}.png"), b"")
    with pytest.raises(BadImagesError, match="5 problems with the images in") as caught:
        tree.read().require_usable("error")
    message = str(caught.value)
    assert "SOB_B_A-14-22549AB-100-002.png: the file is empty" in message
    assert "and 2 more" in message
    assert "data check" in message
    assert "--set data.on_bad_image=skip" in message


def test_require_usable_with_skip_gives_the_good_images(tree: Tree) -> None:
    tree.put(place_of("SOB_B_A-14-22549AB-100-002.png"), b"")
    assert len(tree.read().require_usable("skip").table) == 3


def test_require_usable_does_not_mind_notices(tree: Tree) -> None:
    tree.put("README.txt", b"read me")
    catalog = tree.read()
    assert catalog.require_usable("error") is catalog


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_require_usable_refuses_a_tree_without_images(tmp_path: Path, on_bad_image: str) -> None:
    (tmp_path / "benign" / "SOB").mkdir(parents=True)
    catalog = read_catalog(tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(BadImagesError, match=r"no usable image in .*no such file at all"):
        catalog.require_usable(on_bad_image)  # type: ignore[arg-type]


def test_require_usable_with_skip_refuses_bad_images_alone(tree: Tree) -> None:
    for name in NAMES:
        tree.put(place_of(name), b"")
    with pytest.raises(BadImagesError, match=r"no usable image in .*the file is empty"):
        tree.read().require_usable("skip")


def test_fingerprint_is_the_same_at_another_place_and_time(tree: Tree, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree.root, copy, copy_function=shutil.copyfile)
    moved = read_catalog(copy, cache_dir=tmp_path / "other cache")
    assert moved.fingerprint == tree.read().fingerprint


def test_fingerprint_changes_with_one_pixel(tree: Tree) -> None:
    before = tree.read().fingerprint
    tree.put(place_of(NAMES[0]), encode(100))
    assert tree.read().fingerprint != before


def test_fingerprint_changes_with_a_name(tree: Tree) -> None:
    before = tree.read().fingerprint
    file = tree.root / place_of(NAMES[0])
    file.rename(file.with_name("SOB_B_A-14-22549AB-100-009.png"))
    assert tree.read().fingerprint != before


def test_fingerprint_does_not_mind_what_is_not_used(tree: Tree) -> None:
    before = tree.read().fingerprint
    tree.put("README.txt", b"read me")
    tree.put(place_of("SOB_B_A-14-22549AB-100-002.png"), b"")
    assert tree.read().fingerprint == before


def test_fingerprint_is_sha256_of_paths_and_hashes_in_order() -> None:
    table = pd.DataFrame({"path": ["b", "a"], "sha256": ["2", "1"]})
    # printf 'a\0001\nb\0002\n' | sha256sum
    expected = "1a04f75bd0704a1e3a5609aa6cef325ce65e2ccde2c36252d0e2fc2ddcb5762d"
    assert fingerprint_of(table) == expected


def test_full_set_lacking_an_image_is_an_error(tmp_path: Path, names_7909: list[str]) -> None:
    data = encode(1)
    one_of_each: dict[str, str] = {}
    for path in table_from_names(names_7909)["path"]:
        one_of_each.setdefault(path.rsplit("/", 2)[0], path)
    for path in one_of_each.values():
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
    catalog = read_catalog(tmp_path, cache_dir=tmp_path / "cache")
    assert catalog.is_full_set
    wrong = {p.path: p.detail for p in catalog.errors if p.kind == "wrong_count"}
    assert set(wrong) == {f"{t.label}/SOB/{t.name}" for t in TUMOR_TYPES}
    with pytest.raises(BadImagesError, match="problems with the images"):
        catalog.require_usable("error")


def test_names_alone_give_the_published_numbers(names_7909: list[str]) -> None:
    table = table_from_names(names_7909)
    assert len(table) == 7909
    assert len(table[["type", "slide"]].drop_duplicates()) == 82
    assert table["slide"].nunique() == 81
    assert table["accession"].nunique() == 70
    assert table.groupby("label")["accession"].nunique().to_dict() == {
        "benign": 16,
        "malignant": 54,
    }


def test_names_alone_give_the_columns_of_a_catalog(tree: Tree) -> None:
    named, read = table_from_names(reversed(NAMES)), tree.read().table
    unknown = ["sha256", "pixel_sha256", "width_px", "height_px"]
    pd.testing.assert_frame_equal(named.drop(columns=unknown), read.drop(columns=unknown))
    assert named.dtypes.equals(read.dtypes)
    assert (named[["sha256", "pixel_sha256"]] == "").all(axis=None)


def test_no_names_give_an_empty_table_with_columns() -> None:
    table = table_from_names([])
    assert table.empty
    assert list(table.columns) == list(COLUMNS)


def test_name_that_is_none_is_refused() -> None:
    with pytest.raises(BadImagesError, match=r"received 'cat\.png'"):
        table_from_names(["cat.png"])


def test_name_given_twice_is_refused() -> None:
    with pytest.raises(BadImagesError, match=r"100-001\.png' a second time"):
        table_from_names([NAMES[0], NAMES[0]])


def test_description_of_the_full_list_is_the_published_table(names_7909: list[str]) -> None:
    """The table of the data set's README, with its totals."""
    described = describe(table_from_names(names_7909))
    assert described.columns.tolist() == [
        "40X",
        "100X",
        "200X",
        "400X",
        "total",
        "slides",
        "accessions",
    ]
    assert {str(name): row.tolist() for name, row in described.iterrows()} == {
        "adenosis": [114, 113, 111, 106, 444, 4, 2],
        "fibroadenoma": [253, 260, 264, 237, 1014, 10, 7],
        "phyllodes_tumor": [109, 121, 108, 115, 453, 3, 3],
        "tubular_adenoma": [149, 150, 140, 130, 569, 7, 6],
        "ductal_carcinoma": [864, 903, 896, 788, 3451, 38, 38],
        "lobular_carcinoma": [156, 170, 163, 137, 626, 5, 4],
        "mucinous_carcinoma": [205, 222, 196, 169, 792, 9, 7],
        "papillary_carcinoma": [145, 142, 135, 138, 560, 6, 6],
        "total": [1995, 2081, 2013, 1820, 7909, 81, 70],
    }
    assert described.index.tolist()[:-1] == [t.name for t in TUMOR_TYPES]


def test_description_has_rows_for_the_types_that_occur(tree: Tree) -> None:
    described = describe(tree.read().table)
    assert described.index.tolist() == ["adenosis", "ductal_carcinoma", "total"]
    assert described.loc["adenosis"].tolist() == [1, 1, 0, 0, 2, 2, 1]


def test_description_of_no_images_is_a_row_of_zeros() -> None:
    described = describe(table_from_names([]))
    assert described.loc["total"].tolist() == [0] * 7


def test_real_images_are_all_sound(real_data: Path, tmp_path: Path) -> None:
    catalog = read_catalog(real_data, cache_dir=tmp_path)
    assert catalog.errors == ()
    assert len(catalog.table) == len(list(catalog.root.rglob("*.png")))
    assert set(catalog.table["width_px"]) == {700}
    assert set(catalog.table["height_px"]) <= {456, 460}


def test_real_image_cut_short_is_found(real_data: Path, tree: Tree) -> None:
    source = min(real_data.rglob("SOB_B_F-*.png"))
    path = place_of(source.name)
    tree.put(path, source.read_bytes()[:200_000])
    assert tree.problems() == [(path, "truncated")]
