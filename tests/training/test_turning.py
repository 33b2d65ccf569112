"""Turning on the host: the same images as turning on the device."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from breakhis_search.data.augmentation import NUMBERS_PER_IMAGE, transform
from breakhis_search.data.turning import turn, turned_at_random


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 9 + i) * np.cos(y / (7 + i)) for i in range(3)]
    one = np.stack(waves, axis=-1)
    return np.stack([(127 + (60 + 10 * i) * one) for i in range(6)]).astype(np.uint8)


NUMBERS = np.random.default_rng(0).uniform(-1, 1, (6, NUMBERS_PER_IMAGE)).astype(np.float32)


def on_device(images: np.ndarray, strength: float) -> np.ndarray:
    numbers = NUMBERS.copy()
    numbers[:, 5:] = 0.0  # no colour is changed
    return np.asarray(transform(images.astype(np.float32), strength, keras.ops.array(numbers)))


@pytest.mark.parametrize("size", [(32, 48), (40, 40)], ids=["wide", "square"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_images_are_those_of_the_device(size, strength):
    images = smooth(*size)
    here, there = turn(images, strength, NUMBERS).astype(np.float32), on_device(images, strength)
    # OpenCV rounds places to 1/32 px and colours to whole numbers.
    assert np.abs(here - there).max() < (1.0 if strength == 0 else 4.0)
    assert np.abs(here - there).mean() < 0.6
    assert np.abs(here - images).mean() > 5, "nothing was turned"


def test_strength_zero_gives_every_pixel_of_the_image_once():
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for image, turned in zip(images, turn(images, 0.0, NUMBERS), strict=True):
        assert sorted(image.reshape(-1, 3).tolist()) == sorted(turned.reshape(-1, 3).tolist())


def test_rows_are_turned_anew_each_time_and_the_same_for_a_seed():
    images = smooth(32, 48)
    rows = np.array([3, 0, 3])
    take = turned_at_random(images, 1.0, np.random.default_rng(5))
    first, second = take(rows), take(rows)
    assert (first != second).any()
    assert (first[0] != first[2]).any()
    again = turned_at_random(images, 1.0, np.random.default_rng(5))(rows)
    np.testing.assert_array_equal(first, again)
