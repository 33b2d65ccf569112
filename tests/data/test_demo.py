"""The synthetic demo: its tree and names, its safety on disk, and the trap in its pictures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from breakhis_search.data import demo
from breakhis_search.data.demo import DEMO_MARKER, DEMO_NOTICE, is_demo, make_demo
from breakhis_search.data.demo_stain import EOSIN, HAEMATOXYLIN, draw_look, transmit
from breakhis_search.data.demo_tissue import draw_tile
from breakhis_search.data.location import find_dataset_root
from breakhis_search.data.taxonomy import (
    MAGNIFICATIONS,
    TUMOR_TYPES,
    ImageName,
    TumorType,
    parse_image_name,
)
from breakhis_search.errors import ConfigError, DataError

TINY = {"images_per_slide": 1, "height_px": 24, "width_px": 32, "accessions_per_type": 2}


def list_images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def parse_names(folder: Path) -> list[ImageName]:
    names = [parse_image_name(path.name) for path in list_images(folder)]
    assert None not in names
    return [name for name in names if name is not None]


def read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of two patients per type; tests only read it."""
    return make_demo(tmp_path_factory.mktemp("demo") / "tiny", **TINY)


@pytest.fixture(scope="module")
def five_patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default number of patients, in small pictures."""
    place = tmp_path_factory.mktemp("demo") / "five"
    return make_demo(place, images_per_slide=2, height_px=76, width_px=115)


# --- the tree -------------------------------------------------------------------------------------


def test_make_demo_returns_the_folder_it_was_given(tiny: Path) -> None:
    assert tiny.name == "tiny"
    assert {entry.name for entry in tiny.iterdir()} == {"BreaKHis_v1", DEMO_MARKER}


def test_tree_is_found_like_a_real_one(tiny: Path) -> None:
    assert find_dataset_root(tiny) == (tiny / "BreaKHis_v1/histology_slides/breast").resolve()


def test_every_image_lies_where_its_name_says(tiny: Path) -> None:
    for path, name in zip(list_images(tiny), parse_names(tiny), strict=True):
        letter = name.type.label[0].upper()
        assert path.relative_to(tiny).parent.as_posix() == (
            f"BreaKHis_v1/histology_slides/breast/{name.type.label}/SOB/{name.type.name}"
            f"/SOB_{letter}_{name.type.code}_{name.slide}/{name.magnification}X"
        )


def test_every_type_has_every_magnification(tiny: Path) -> None:
    seen = {(name.type.name, name.magnification) for name in parse_names(tiny)}
    assert seen == {
        (t.name, magnification) for t in TUMOR_TYPES for magnification in MAGNIFICATIONS
    }


def test_every_type_has_five_patients_by_default(five_patients: Path) -> None:
    patients = {(name.type.name, name.accession) for name in parse_names(five_patients)}
    assert Counter(t for t, _ in patients) == dict.fromkeys((t.name for t in TUMOR_TYPES), 5)
    assert len({accession for _, accession in patients}) == 40


def test_some_patients_have_two_slides(five_patients: Path) -> None:
    slides = {(name.accession, name.slide) for name in parse_names(five_patients)}
    counts = Counter(accession for accession, _ in slides)
    assert Counter(counts.values()) == {1: 36, 2: 4}


def test_slide_numbers_are_of_no_real_slide(five_patients: Path, names_7909: list[str]) -> None:
    real = [name for name in map(parse_image_name, names_7909) if name is not None]
    drawn = parse_names(five_patients)
    assert not {n.accession for n in drawn} & {n.accession for n in real}
    assert {n.accession[:2] for n in drawn}.isdisjoint(n.accession[:2] for n in real)
    assert min(int(n.accession[3:]) for n in drawn) > max(int(n.accession[3:]) for n in real)


def test_images_have_the_size_that_was_asked_for(tiny: Path) -> None:
    shapes = {read_image(path).shape for path in list_images(tiny)}
    assert shapes == {(24, 32, 3)}


def test_images_are_all_different(five_patients: Path) -> None:
    images = list_images(five_patients)
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in images}) == len(images)


# --- what it says about itself --------------------------------------------------------------------


def test_marker_says_that_it_is_synthetic(tiny: Path) -> None:
    marker = json.loads((tiny / DEMO_MARKER).read_text())
    assert marker["notice"] == DEMO_NOTICE
    assert "synthetic, not patient data" in DEMO_NOTICE
    assert {key: marker[key] for key in TINY} == TINY


def test_is_demo_from_any_place_inside(tiny: Path) -> None:
    assert is_demo(tiny)
    assert is_demo(tiny / "BreaKHis_v1" / "histology_slides" / "breast")


def test_is_demo_denies_other_folders(tmp_path: Path) -> None:
    (tmp_path / DEMO_MARKER).write_text('{"notice": "the demo tape of my band"}')
    assert not is_demo(tmp_path)


# --- the same again -------------------------------------------------------------------------------


def test_same_seed_gives_identical_bytes(tiny: Path, tmp_path: Path) -> None:
    assert digest(make_demo(tmp_path / "again", **TINY)) == digest(tiny)


def test_other_seed_gives_other_pictures(tiny: Path, tmp_path: Path) -> None:
    other = digest(make_demo(tmp_path / "other", seed=1, **TINY))
    first = digest(tiny)
    assert other.keys() == first.keys()
    assert all(other[path] != first[path] for path in first)


def test_complete_demo_is_not_drawn_again(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", **TINY)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    make_demo(folder, **TINY)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_demo_with_a_missing_image_is_drawn_again(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", **TINY)
    lost = list_images(folder)[5]
    lost.unlink()
    make_demo(folder, **TINY)
    assert lost.is_file()


def test_demo_with_other_parameters_is_replaced(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", **TINY)
    make_demo(folder, **{**TINY, "accessions_per_type": 1})
    assert len(list_images(folder)) == 8 * 4
    assert json.loads((folder / DEMO_MARKER).read_text())["accessions_per_type"] == 1


# --- safety on disk -------------------------------------------------------------------------------


def test_nothing_is_left_beside_the_demo(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", **TINY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


def test_failed_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise MemoryError("no memory for this tile")

    monkeypatch.setattr(demo, "draw_tile", fail)
    with pytest.raises(MemoryError, match="no memory for this tile"):
        make_demo(tmp_path / "demo", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_demo_made_by_another_process_meanwhile_is_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    fill = demo._fill

    def fill_while_another_finishes(place: Path, parameters: demo.DemoParameters) -> None:
        fill(place, parameters)
        fill(folder, parameters)
        (folder / "BreaKHis_v1" / "first.txt").touch()  # tells the other's tree from ours

    monkeypatch.setattr(demo, "_fill", fill_while_another_finishes)
    make_demo(folder, **TINY)
    assert (folder / "BreaKHis_v1" / "first.txt").is_file()


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    make_demo(folder, **TINY)
    assert is_demo(folder)


def test_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"an earlier demo; received .*thesis\.txt"):
        make_demo(tmp_path, **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_demo_with_real_images_put_inside_is_refused(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", **TINY)
    real = list_images(folder)[0].with_name("SOB_B_A-14-22549AB-40-001.png")
    real.touch()
    with pytest.raises(DataError, match="14-22549AB"):
        make_demo(folder, seed=1, **TINY)
    assert real.is_file()


def test_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="give another folder"):
        make_demo(tmp_path / "file", **TINY)


def test_place_below_a_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written to"):
        make_demo(tmp_path / "file" / "demo", **TINY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("images_per_slide", 0),
        ("images_per_slide", 1000),
        ("accessions_per_type", 0),
        ("height_px", 15),
    ],
)
def test_parameter_out_of_range_is_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}; expected .*change {name}"):
        make_demo(tmp_path / "demo", **{**TINY, name: value})
    assert list(tmp_path.iterdir()) == []


# --- the pictures ---------------------------------------------------------------------------------


def test_tissue_is_pink_and_nuclei_are_blue(five_patients: Path) -> None:
    pixels = np.concatenate(
        [read_image(path).reshape(-1, 3) for path in list_images(five_patients)]
    )
    blue, green, red = pixels.astype(float).T
    darkest, light = red < np.quantile(red, 0.1), red > np.quantile(red, 0.5)
    assert blue[darkest].mean() > red[darkest].mean() > green[darkest].mean()
    assert red[light].mean() > blue[light].mean() > green[light].mean()


def test_light_falls_tenfold_per_unit_of_absorbance() -> None:
    stains = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], np.float32)
    one, two = np.ones((1, 1), np.float32), np.full((1, 1), 2, np.float32)
    assert transmit(one, two, stains).ravel() == pytest.approx([0.1, 10**-1.5, 0.01])


@pytest.mark.parametrize("vector", [HAEMATOXYLIN, EOSIN])
def test_published_stain_vectors_have_unit_length(vector: tuple[float, ...]) -> None:
    assert np.linalg.norm(vector) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("tumor_type", TUMOR_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("size_px", [(16, 16), (17, 90), (120, 31)])
def test_every_type_can_be_drawn_in_any_size(
    tumor_type: TumorType, size_px: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    look = draw_look(rng)
    for magnification in MAGNIFICATIONS:
        tile = draw_tile(tumor_type.name, magnification, look, size_px, rng)
        assert tile.shape == (*size_px, 3)
        assert tile.dtype == np.uint8


def measure_image(path: Path) -> list[float]:
    """Colour moments and the strength of detail at three scales: 15 numbers per image."""
    image = read_image(path).astype(np.float32)
    pixels = image.reshape(-1, 3)
    mean, deviation = pixels.mean(axis=0), pixels.std(axis=0)
    skewness = (((pixels - mean) / deviation) ** 3).mean(axis=0)
    grey, detail = image.mean(axis=2), []
    for sigma_px in (1, 2, 4):
        blurred = cv2.GaussianBlur(grey, (0, 0), sigma_px)
        detail += [(grey - blurred).std(), cv2.Laplacian(blurred, cv2.CV_32F).std()]
    return [*mean, *deviation, *skewness, *detail]


@pytest.fixture(scope="module")
def measured(five_patients: Path) -> tuple[np.ndarray, list[ImageName]]:
    """Features [n, 15], standardised within each magnification, and the names of their images."""
    names = parse_names(five_patients)
    features = np.array([measure_image(path) for path in list_images(five_patients)])
    features = np.sign(features) * np.log1p(np.abs(features))
    magnifications = np.array([name.magnification for name in names])
    for magnification in MAGNIFICATIONS:
        rows = magnifications == magnification
        features[rows] = StandardScaler().fit_transform(features[rows])
    return features, names


def score_both_splits(
    measured: tuple[np.ndarray, list[ImageName]], labels: np.ndarray, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every image once with a split by image and once with a split by patient."""
    features, names = measured
    model = make_pipeline(StandardScaler(), SVC(C=3.0))
    by_image = StratifiedKFold(5, shuffle=True, random_state=0)
    by_patient = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    patients = [name.accession for name in names]
    return (
        cross_val_predict(model, features, labels, cv=by_image, method=method),
        cross_val_predict(model, features, labels, groups=patients, cv=by_patient, method=method),
    )


def test_binary_split_by_image_leaks(measured: tuple[np.ndarray, list[ImageName]]) -> None:
    labels = np.array([name.type.label == "malignant" for name in measured[1]])
    by_image, by_patient = score_both_splits(measured, labels, "decision_function")
    honest = roc_auc_score(labels, by_patient)
    assert roc_auc_score(labels, by_image) >= honest + 0.10  # seen: 0.97 and 0.75
    assert 0.65 < honest < 0.90


def test_types_are_learnable_across_patients(
    measured: tuple[np.ndarray, list[ImageName]],
) -> None:
    labels = np.array([name.type.code for name in measured[1]])
    by_image, by_patient = score_both_splits(measured, labels, "predict")
    honest = accuracy_score(labels, by_patient)
    assert honest > 0.35  # chance is 0.125; seen: 0.61, and 0.93 split by image
    assert accuracy_score(labels, by_image) >= honest + 0.10
