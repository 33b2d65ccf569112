"""Copies of a picture are found under other patients; different pictures are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from breakhis_search.data.catalog import read_catalog, table_from_names
from breakhis_search.data.demo import make_demo
from breakhis_search.data.images import read_rgb
from breakhis_search.data.near_duplicates import (
    MAX_DISTANCE,
    NearDuplicate,
    check_near_duplicates,
    find_near_duplicates,
    perceptual_hash,
)

Pixels = npt.NDArray[np.uint8]


def make_picture(seed: int, height: int = 115, width: int = 175) -> Pixels:
    """Smooth blobs on a bright ground, as unlike each other as fields of view are."""
    noise = np.random.default_rng(seed).normal(size=(9, 13, 3)).astype(np.float32)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(170 + 30 * smooth, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 50) -> Pixels:
    data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def resized(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: cv2.resize(pixels, None, fx=factor, fy=factor)


def brighter(by: int) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(pixels.astype(np.int64) + by, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg 90": lambda pixels: jpeg(pixels, 90),
    "jpeg 20": lambda pixels: jpeg(pixels, 20),
    "half": resized(0.5),
    "one and a half": resized(1.5),
    "another shape": lambda pixels: cv2.resize(pixels, (224, 224)),
    "brighter": brighter(30),
    "darker": brighter(-30),
    "all at once": lambda pixels: jpeg(brighter(15)(resized(0.7)(pixels))),
}
TURNS: dict[str, Callable[[Pixels], Pixels]] = {
    f"{'mirrored, ' if mirrored else ''}turned by {90 * quarters}": (
        lambda pixels, m=mirrored, q=quarters: np.rot90(pixels[:, ::-1] if m else pixels, q)
    )
    for mirrored in (False, True)
    for quarters in range(4)
    if mirrored or quarters
}


def hashes_of(*pictures: Pixels) -> list[str]:
    return [perceptual_hash(np.ascontiguousarray(picture)) for picture in pictures]


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_copy_under_another_patient_is_found(change):
    picture = make_picture(1)
    hashes = hashes_of(make_picture(0), picture, make_picture(2), change(picture))
    [pair] = find_near_duplicates(hashes, ["a", "b", "c", "d"])
    assert (pair.first, pair.second, pair.turned) == (1, 3, False)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
def test_turned_copy_under_another_patient_is_found(turn):
    picture = make_picture(1)
    hashes = hashes_of(make_picture(0), picture, jpeg(np.ascontiguousarray(turn(picture))))
    [pair] = find_near_duplicates(hashes, ["a", "b", "c"])
    assert (pair.first, pair.second, pair.turned) == (1, 2, True)


def test_copies_of_one_patient_are_no_leak():
    hashes = hashes_of(make_picture(1), jpeg(make_picture(1)))
    assert find_near_duplicates(hashes, ["a", "a"]) == []


def test_different_pictures_are_not_alike():
    hashes = hashes_of(*(make_picture(seed) for seed in range(150)))
    assert find_near_duplicates(hashes, [str(i) for i in range(150)]) == []


def test_distance_counts_bits_and_closest_come_first():
    hashes = [f"{bits:016x}" for bits in (0, 0b111, 0b1, (1 << MAX_DISTANCE + 1) - 1)]
    found = find_near_duplicates(hashes, ["a", "b", "c", "d"])
    assert found[:3] == [
        NearDuplicate(0, 2, 1, turned=False),
        NearDuplicate(1, 2, 2, turned=False),
        NearDuplicate(0, 1, 3, turned=False),
    ]
    assert NearDuplicate(0, 3, MAX_DISTANCE + 1, turned=False) not in found


def test_picture_without_content_matches_nothing():
    white, grey = np.full((46, 70, 3), 255, np.uint8), np.full((46, 70, 3), 128, np.uint8)
    assert hashes_of(white, grey) == ["", ""]
    assert find_near_duplicates(["", ""], ["a", "b"]) == []


def test_pairs_are_found_across_blocks():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, size=1300, dtype=np.uint64)
    bits[1250] = bits[3] ^ np.uint64(0b101)
    found = find_near_duplicates([f"{b:016x}" for b in bits], [str(i) for i in range(1300)])
    assert found == [NearDuplicate(3, 1250, 2, turned=False)]


NAMES = [
    "SOB_B_F-14-9133-40-001.png",
    "SOB_B_F-14-9133-40-002.png",
    "SOB_M_DC-14-2523-40-001.png",
    "SOB_M_DC-14-2523-40-002.png",
    "SOB_M_DC-14-2773-40-001.png",
]


def test_notice_names_both_files_patients_and_a_remedy():
    pictures = [make_picture(seed) for seed in (1, 2, 3, 4, 5)]
    pictures[2] = jpeg(pictures[0])
    pictures[3] = np.ascontiguousarray(pictures[1][:, ::-1])
    table = table_from_names(NAMES).assign(perceptual_hash=hashes_of(*pictures))
    [problem] = check_near_duplicates(table)
    assert problem.severity == "notice"
    assert problem.kind == "near_duplicate"
    both = problem.path + problem.detail
    assert any(a in both and b in both for a, b in [(NAMES[0], NAMES[2]), (NAMES[1], NAMES[3])])
    assert "14-2523 and 14-9133" in problem.detail
    assert problem.detail.endswith("so do 1 more pairs of these two")
    assert "look at both" in problem.remedy


def test_pixel_identical_pictures_are_left_to_the_join_of_patients():
    picture = make_picture(1)
    table = table_from_names(NAMES[1:3]).assign(
        perceptual_hash=hashes_of(picture, picture), pixel_sha256="the same"
    )
    assert check_near_duplicates(table) == ()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("near") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=48, width_px=72)


def test_demo_has_no_near_duplicates_and_keeps_its_hashes(demo, tmp_path):
    catalog = read_catalog(demo, cache_dir=tmp_path)
    assert [p.kind for p in catalog.problems] == ["partial_set"]
    again = read_catalog(demo, cache_dir=tmp_path).table  # from the kept findings
    assert again["perceptual_hash"].tolist() == catalog.table["perceptual_hash"].tolist()
    assert (again["perceptual_hash"].str.len() == 16).all()


def test_planted_copy_is_a_notice_of_the_catalog(demo, tmp_path):
    root = shutil.copytree(demo, tmp_path / "demo")
    first, *_, last = sorted(root.rglob("*.png"))
    copy = jpeg(read_rgb(first), 80)
    last.write_bytes(cv2.imencode(".png", copy[:, :, ::-1])[1].tobytes())
    catalog = read_catalog(root, cache_dir=tmp_path / "cache")
    [problem] = [p for p in catalog.problems if p.kind == "near_duplicate"]
    assert first.name in problem.path + problem.detail
    assert last.name in problem.path + problem.detail
    assert catalog.errors == ()


def test_real_patients_have_no_alike_pictures_and_real_copies_are_found(real_data):
    # Every third image, for time; docs/protocols.md has the figures of all of them.
    files = sorted(real_data.rglob("SOB_*.png"))[::3]
    pictures = [read_rgb(file) for file in files]
    patients = table_from_names(file.name for file in files)["accession"].tolist()
    hashes = hashes_of(*pictures)
    assert find_near_duplicates(hashes, patients) == []
    sources = range(0, len(files), 10)
    copies = [brighter(15)(jpeg(np.ascontiguousarray(np.rot90(pictures[i], i)))) for i in sources]
    owners = [*patients, *(f"copy {i}" for i in sources)]
    found = find_near_duplicates([*hashes, *hashes_of(*copies)], owners)
    assert {(p.first, p.second) for p in found} == {
        (source, len(files) + number) for number, source in enumerate(sources)
    }
