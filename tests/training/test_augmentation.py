"""Augmentation: exact symmetries at strength 0, plausible images at strength 1."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from breakhis_search.data.augmentation import _HED_FROM_RGB, _RGB_FROM_HED, augment


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.uniform(80, 220, (6, 4, 6, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return smooth.astype(np.float32)


def symmetries(image: np.ndarray) -> list[np.ndarray]:
    flips = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    return flips + (
        [f.transpose(1, 0, 2) for f in flips] if image.shape[0] == image.shape[1] else []
    )


def run(images, strength: float, seed: int = 0) -> np.ndarray:
    return np.asarray(augment(images, strength, keras.random.SeedGenerator(seed)))


@pytest.mark.parametrize("square", [False, True])
def test_strength_zero_only_turns_and_mirrors(images, square):
    images = images[:, :32, :32] if square else images
    for image, changed in zip(images, run(images, 0.0), strict=True):
        distances = [np.abs(s - changed).max() for s in symmetries(image)]
        assert min(distances) < 0.1


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_changed_images_stay_images(images, strength):
    changed = run(images, strength)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.isfinite(changed).all()


def test_more_strength_changes_more(images):
    def change(strength: float) -> float:
        return float(np.abs(run(images, strength).mean((1, 2)) - images.mean((1, 2))).mean())

    assert change(0.0) < change(0.3) < change(1.0)


def test_images_of_a_batch_are_changed_differently(images):
    same = np.repeat(images[:1], 6, axis=0)
    changed = run(same, 1.0)
    assert all(np.abs(changed[0] - other).max() > 1 for other in changed[1:])


def test_the_same_seed_gives_the_same_images(images):
    np.testing.assert_array_equal(run(images, 1.0, seed=3), run(images, 1.0, seed=3))


def test_stain_separation_is_its_own_inverse():
    np.testing.assert_allclose(_HED_FROM_RGB @ _RGB_FROM_HED, np.eye(3), atol=1e-5)
