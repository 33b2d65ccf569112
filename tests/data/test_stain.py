from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.data import stain
from breakhis_search.data.images import read_rgb, resize_rgb
from breakhis_search.data.stain import (
    StainReference,
    apply_map,
    estimate_stains,
    normalize_stain,
    reference_of,
    stain_map,
)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=0)


LABORATORY_A = unit(np.array([[0.65, 0.70, 0.29], [0.25, 0.90, 0.36]]).T)
LABORATORY_B = unit(np.array([[0.55, 0.60, 0.58], [0.10, 0.80, 0.60]]).T)

# What torchstain 1.4.1 (backend="numpy") says of `chart(LABORATORY_A)`: its fit, and every 16th
# row and 21st column of what it normalises to its default reference.
TORCHSTAIN_VECTORS = [
    [0.57476459, 0.35135784],
    [0.75701832, 0.86851375],
    [0.31075542, 0.34961626],
]
TORCHSTAIN_MAXIMA = [1.80879055, 1.4739829]
TORCHSTAIN_REFERENCE = reference_of(
    np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), np.array([1.9705, 1.0308])
)
TORCHSTAIN_PIXELS = [
    [[193, 158, 184], [140, 111, 153], [102, 79, 128], [76, 56, 106]],
    [[195, 138, 166], [143, 98, 138], [105, 69, 115], [76, 49, 96]],
    [[199, 122, 149], [145, 86, 125], [106, 61, 104], [78, 43, 86]],
]


def photograph(concentrations, vectors):
    """Light through stains: [h, w, 2] and [3, 2] → uint8 [h, w, 3]."""
    light = 240.0 * np.exp(-concentrations @ vectors.T) - 1.0
    return np.rint(light).clip(0, 255).astype(np.uint8)


def chart(vectors):
    """Every mixture of two stains; dark enough to be tissue by any definition of it."""
    first, second = np.meshgrid(np.linspace(0.3, 1.5, 64), np.linspace(0.35, 1.2, 48))
    return photograph(np.stack([first, second], axis=-1), vectors)


def tissue(seed=0, size=(96, 128)):
    """Concentrations of a field with nuclei, stroma and empty slide, [h, w, 2]."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(4, size=size, p=[0.25, 0.4, 0.2, 0.15])
    means = np.array([[1.1, 0.02], [0.02, 0.7], [0.6, 0.5], [0.0, 0.0]])[kinds]
    return means * rng.uniform(0.6, 1.2, (*size, 2))


def angle_degrees(first, second):
    return np.degrees(np.arccos(np.clip((first * second).sum(axis=0), -1, 1)))


def test_estimate_agrees_with_torchstain():
    found = estimate_stains(chart(LABORATORY_A))
    np.testing.assert_allclose(found.vectors, TORCHSTAIN_VECTORS, atol=1e-6)
    np.testing.assert_allclose(found.maxima, TORCHSTAIN_MAXIMA, atol=1e-6)


def test_normalized_pixels_agree_with_torchstain():
    # torchstain adds 1 to every level on the way in, not on the way out, and cuts off decimals
    normalized = normalize_stain(chart(LABORATORY_A), TORCHSTAIN_REFERENCE)
    difference = np.array(TORCHSTAIN_PIXELS) - normalized[::16, ::21]
    assert set(np.unique(difference)) <= {0, 1}


@pytest.mark.parametrize("vectors", [LABORATORY_A, LABORATORY_B])
def test_known_stains_of_a_mixture_are_found(vectors):
    found = estimate_stains(photograph(tissue(), vectors))
    assert found.fault == ""
    assert angle_degrees(found.vectors, vectors).max() < 2.0


def test_estimate_is_in_unit_vectors_with_haematoxylin_first():
    found = estimate_stains(photograph(tissue(), LABORATORY_A[:, ::-1]))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=0), 1.0, atol=1e-9)
    assert found.vectors[0, 0] > found.vectors[0, 1]


def test_estimate_does_not_depend_on_how_much_empty_slide_there_is():
    concentrations = tissue()
    padded = np.concatenate([concentrations, np.zeros_like(concentrations)])
    found, again = (estimate_stains(photograph(c, LABORATORY_A)) for c in (concentrations, padded))
    np.testing.assert_allclose(found.vectors, again.vectors, atol=1e-6)


def test_pale_eosin_counts_as_tissue():
    # Red light passes eosin almost unhindered: a rule on every single channel would drop it all.
    eosin = unit(np.array([[0.05, 0.90, 0.40]]).T)
    vectors = np.column_stack([LABORATORY_A[:, 0], eosin])
    found = estimate_stains(photograph(tissue(), vectors))
    assert angle_degrees(found.vectors, vectors).max() < 2.0


def test_the_same_tissue_of_two_laboratories_looks_alike_afterwards():
    first, second = (photograph(tissue(), v) for v in (LABORATORY_A, LABORATORY_B))
    reference = reference_of(LABORATORY_A, np.array([1.2, 0.9]))
    before = np.abs(first.astype(int) - second).mean()
    after = np.abs(
        normalize_stain(first, reference).astype(int) - normalize_stain(second, reference)
    ).mean()
    assert before > 15
    assert after < 1.5


def test_image_at_the_reference_stays_as_it_is():
    image = photograph(tissue(), LABORATORY_A)
    found = estimate_stains(image)
    normalized = normalize_stain(image, reference_of(found.vectors, found.maxima))
    assert np.abs(normalized.astype(int) - image).max() <= 2


def single_stain():
    rng = np.random.default_rng(0)
    amount = rng.uniform(0.3, 1.2, (64, 96, 1)) * np.array([1.0, 0.0])
    noisy = photograph(amount, LABORATORY_A) + rng.normal(0, 2, (64, 96, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def traces_of_eosin():
    amounts = np.zeros((100, 100, 2))
    amounts[:8, :, 0] = np.linspace(0.8, 1.2, 100)
    amounts[8, :50, 1] = np.linspace(0.8, 1.2, 50)
    return photograph(amounts, LABORATORY_A)


UNUSABLE = {
    "white": (np.full((32, 48, 3), 255, np.uint8), "little_tissue"),
    "empty_slide": (np.full((32, 48, 3), 236, np.uint8), "little_tissue"),
    "black": (np.zeros((32, 48, 3), np.uint8), "one_stain"),
    "one_colour": (np.full((32, 48, 3), (150, 60, 140), np.uint8), "one_stain"),
    "grey": (np.arange(150, dtype=np.uint8).repeat(30).reshape(30, 50, 3), "one_stain"),
    "single_stain": (single_stain(), "one_stain"),
    "traces_of_eosin": (traces_of_eosin(), "faint_stain"),
    "one_pixel": (np.full((1, 1, 3), 100, np.uint8), "one_stain"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_image_whose_stains_cannot_be_told_apart_names_the_reason(name):
    image, fault = UNUSABLE[name]
    assert estimate_stains(image).fault == fault


@pytest.mark.parametrize("name", UNUSABLE)
def test_image_whose_stains_cannot_be_told_apart_stays_as_it_is(name):
    image, _ = UNUSABLE[name]
    np.testing.assert_array_equal(normalize_stain(image, TORCHSTAIN_REFERENCE), image)


def test_any_picture_gives_finite_maps():
    rng = np.random.default_rng(0)
    for top in (20, 120, 256):
        image = rng.integers(0, top, (40, 60, 3), dtype=np.uint8)
        assert np.isfinite(stain_map(estimate_stains(image), TORCHSTAIN_REFERENCE)).all()


def test_map_beyond_all_levels_is_cut_off_at_black_and_white():
    image = np.array([[[255, 255, 255], [100, 100, 100]]], np.uint8)
    assert apply_map(image, 200.0 * np.eye(3)).tolist() == [[[255] * 3, [0] * 3]]


def test_reference_survives_json():
    text = json.dumps(TORCHSTAIN_REFERENCE.to_dict())
    assert StainReference.from_dict(json.loads(text)) == TORCHSTAIN_REFERENCE


def test_module_imports_nothing_of_the_package():
    """A copy of it serves inside registered models."""
    tree = ast.parse(Path(stain.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert imported == {"__future__", "collections", "dataclasses", "typing", "cv2", "numpy"}


def accession_of(path):
    return re.search(r"-(\d\d-\d+)", path.name).group(1)


def test_colours_of_real_accessions_come_closer(real_data):
    """Mean a* and b* (CIELAB) of accessions spread less than half of what they did."""
    by_accession = {}
    for path in sorted(real_data.rglob("*100*.png")):
        by_accession.setdefault(accession_of(path), []).append(path)
    kept = [paths[:4] for paths in by_accession.values() if len(paths) >= 4]
    images = [[resize_rgb(read_rgb(p), 64, 96) for p in paths] for paths in kept]
    found = [estimate_stains(image) for accession in images for image in accession]
    assert {f.fault for f in found} == {""}
    reference = reference_of(
        unit(np.median([f.vectors for f in found], axis=0)),
        np.median([f.maxima for f in found], axis=0),
    )
    normalized = [[normalize_stain(i, reference) for i in accession] for accession in images]
    before, after = (chroma_spread(accessions) for accessions in (images, normalized))
    assert len(kept) >= 10
    assert after < 0.5 * before


def chroma_spread(accessions):
    """Standard deviation between accessions of mean a* and b*, summed up."""
    means = [np.mean([cielab(image) for image in images], axis=(0, 1, 2)) for images in accessions]
    return np.std(means, axis=0, ddof=1)[1:].sum()


def cielab(image):
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
