from __future__ import annotations

import logging

import numpy as np
import pytest

from breakhis_search.data import stain_cache
from breakhis_search.data.stain import normalize_stain
from breakhis_search.data.stain_cache import NormalizedImages, open_stain_cache
from breakhis_search.errors import DataError, TrialFailure

WHITE = 4  # the row of an image without tissue


def field(seed):
    """A photograph of nuclei and stroma by a laboratory of its own, uint8 [32, 48, 3]."""
    rng = np.random.default_rng(seed)
    vectors = np.array([[0.65, 0.70, 0.29], [0.20, 0.90, 0.38]]) + rng.normal(0, 0.04, (2, 3))
    kinds = np.array([[1.1, 0.05], [0.05, 0.7], [0.5, 0.5]])[rng.choice(3, size=(32, 48))]
    amounts = kinds * rng.uniform(0.6, 1.2, (32, 48, 2))
    return (240 * np.exp(-amounts @ vectors)).astype(np.uint8)


@pytest.fixture
def images():
    rows = [field(seed) for seed in range(6)]
    rows[WHITE] = np.full((32, 48, 3), 250, np.uint8)
    return np.stack(rows)


def open_cache(images, folder, names=None, **options):
    names = names or [f"sha-{i}" for i in range(len(images))]
    return open_stain_cache(images, names, cache_dir=folder, **options)


@pytest.fixture
def table(images, tmp_path):
    return open_cache(images, tmp_path)


@pytest.fixture
def no_estimation(monkeypatch):
    def refuse(image):
        raise AssertionError("estimated again")

    return lambda: monkeypatch.setattr(stain_cache, "estimate_stains", refuse)


def test_reference_is_the_median_of_the_training_images(table):
    rows = np.array([0, 2, 3])
    reference = table.fit_reference(rows)
    np.testing.assert_allclose(reference.maxima, np.median(table.maxima[rows], axis=0))
    np.testing.assert_allclose(np.linalg.norm(reference.haematoxylin), 1.0)
    np.testing.assert_allclose(np.linalg.norm(reference.eosin), 1.0)


def test_reference_does_not_change_with_the_pixels_of_validation_images(images, tmp_path):
    train, validation = np.array([0, 1, 2]), np.array([3, 5])
    before = open_cache(images, tmp_path / "a").fit_reference(train)
    images[validation] = [field(100), field(101)]
    after = open_cache(images, tmp_path / "b").fit_reference(train)
    assert after == before


def test_reference_changes_with_the_training_images(table):
    assert table.fit_reference(np.array([0, 1])) != table.fit_reference(np.array([2, 3]))


def test_reference_passes_over_images_without_two_stains(table):
    assert table.faults[WHITE] == "little_tissue"
    with_white, without = np.array([0, 1, WHITE]), np.array([0, 1])
    assert table.fit_reference(with_white) == table.fit_reference(without)


def test_reference_of_images_without_two_stains_fails_the_trial(table):
    with pytest.raises(TrialFailure, match=r"two stains.*1 × little_tissue of 1 images"):
        table.fit_reference(np.array([WHITE]))


def test_one_odd_image_does_not_move_the_reference(table, images, tmp_path):
    rows = np.array([0, 1, 2, 3, 5])
    images[5] = images[5][:, :, ::-1]  # another order of colours
    odd = open_cache(images, tmp_path / "odd").fit_reference(rows)
    moved = np.abs(np.subtract(odd.haematoxylin, table.fit_reference(rows).haematoxylin))
    assert moved.max() < 0.05


def test_batches_are_what_serving_makes_of_each_image(images, table):
    reference = table.fit_reference(np.array([0, 1]))
    view = NormalizedImages(images, table, reference)
    rows = np.array([3, WHITE, 0, 3])
    expected = [normalize_stain(images[row], reference) for row in rows]
    np.testing.assert_array_equal(view[rows], expected)


def test_view_has_the_shape_of_the_images(images, table):
    view = NormalizedImages(images, table, table.fit_reference(np.array([0])))
    assert (view.shape, view.dtype, len(view)) == (images.shape, np.uint8, len(images))


def test_stains_are_estimated_once(images, table, tmp_path, no_estimation):
    no_estimation()
    again = open_cache(images, tmp_path)
    np.testing.assert_array_equal(again.vectors, table.vectors)
    np.testing.assert_array_equal(again.maxima, table.maxima)
    assert again.faults.tolist() == table.faults.tolist()


@pytest.mark.parametrize("change", ["content", "size"])
def test_stains_of_other_images_are_estimated_anew(images, table, tmp_path, no_estimation, change):
    no_estimation()
    names = [f"other-{i}" for i in range(6)] if change == "content" else None
    smaller = images[:, :16] if change == "size" else images
    with pytest.raises(AssertionError, match="estimated again"):
        open_cache(smaller, tmp_path, names)


def test_damaged_cache_is_written_again(images, table, tmp_path):
    [file] = (tmp_path / "stains").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again = open_cache(images, tmp_path)
    np.testing.assert_array_equal(again.vectors, table.vectors)
    assert [f.name for f in (tmp_path / "stains").iterdir()] == [file.name]
    assert len(np.load(file)["faults"]) == len(images)


def test_cache_in_a_place_that_cannot_be_written_names_the_remedy(images, tmp_path):
    place = tmp_path / "file"
    place.write_text("not a folder")
    with pytest.raises(DataError, match="BREAKHIS_CACHE"):
        open_cache(images, place)


def test_progress_counts_every_image(images, tmp_path):
    seen = []
    open_cache(images, tmp_path, progress=lambda *step: seen.append(step))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_images_left_as_they_are_are_logged_with_the_reason(images, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        open_cache(images, tmp_path)
    assert "1 × little_tissue of 6 images" in caplog.text
