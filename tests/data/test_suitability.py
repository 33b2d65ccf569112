"""Doubts about images that a classifier would answer all the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from breakhis_search.data.demo import make_demo
from breakhis_search.data.images import read_rgb
from breakhis_search.data.suitability import doubts_about

NAME = "SOB_M_DC-14-10926-40-001.png"


def doubts(image: np.ndarray, name: str = "slide.png", magnification: int | None = None):
    return doubts_about(image, name, magnification=magnification)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory) -> np.ndarray:
    folder = make_demo(tmp_path_factory.mktemp("demo") / "demo", images_per_slide=1)
    return read_rgb(min(folder.rglob("*.png")))


def plot() -> np.ndarray:
    """A curve on white."""
    image = np.full((460, 700, 3), 255, np.uint8)
    points = np.array([[x, 200 + x // 4] for x in range(0, 700, 10)], np.int32)
    return cv2.polylines(image, [points], False, (31, 119, 180), 2)


def landscape() -> np.ndarray:
    """A meadow below the sky, with the grain of a camera."""
    image = np.empty((460, 700, 3), np.uint8)
    image[:230], image[230:] = (90, 150, 220), (60, 140, 50)
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_drawn_tissue_raises_no_doubt(tissue):
    assert doubts(tissue) == ()


def test_real_images_raise_no_doubt(real_data):
    files = sorted(real_data.rglob("*.png"))[::7]
    assert len(files) > 20
    assert {f.name: d for f in files if (d := doubts(read_rgb(f)))} == {}


def test_plot_has_hardly_any_stain():
    assert doubts(plot()) == ("hardly anything in it is stained",)


def test_gray_photograph_has_no_colour_of_a_stain(tissue):
    gray = cv2.cvtColor(tissue, cv2.COLOR_RGB2GRAY)
    assert doubts(np.dstack([gray] * 3)) == ("it has hardly any colour of a stain",)


def test_colours_of_a_landscape_are_those_of_no_stain():
    assert doubts(landscape()) == ("its colours are not those of haematoxylin and eosin",)


@pytest.mark.parametrize(("width", "says"), [(460, "1.00 to 1"), (1400, "3.04 to 1")])
def test_other_sides_are_doubted(tissue, width, says):
    [doubt] = doubts(cv2.resize(tissue, (width, 460)))
    assert says in doubt


@pytest.mark.parametrize("magnification", [None, 40])
def test_fitting_magnification_raises_no_doubt(tissue, magnification):
    assert doubts(tissue, NAME, magnification) == ()


def test_other_magnification_is_doubted(tissue):
    assert doubts(tissue, NAME, 100) == ("its name says 40X, the model knows 100X only",)


def test_name_that_says_nothing_is_not_doubted(tissue):
    assert doubts(tissue, "scan 40X.png", 100) == ()
