"""Whether an image looks like what a model was trained on: cheap doubts, said before its answer.

A classifier answers anything, a plot and a cat too. These checks find what is plainly no BreaKHis
field of view; an image that passes them may still be unlike every training image.

Bounds: on the 341 real BreaKHis images at hand the aspect is 1.52 to 1.54, and green light is taken
up 0.93 to 7.4 times as much as the stronger of red and blue (0.98 at the first percentile);
photographs of a flower and of a palace have 0.41 and 0.81.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from breakhis_search.data.images import resize_rgb
from breakhis_search.data.stain import LIGHT, MIN_DENSITY, estimate_stains
from breakhis_search.data.taxonomy import parse_image_name

_ASPECT = 700 / 460
_ASPECT_TOLERANCE = 0.15
_LEAST_GREEN = 0.9
"""Haematoxylin and eosin both take up green light most (see :mod:`breakhis_search.data.stain`)."""
_LOOKED_AT_PX = (140, 210)


def doubts_about(
    image: NDArray[np.uint8], name: str, *, magnification: int | None
) -> tuple[str, ...]:
    """Return in words why an image may be none that a model is made for; empty without a doubt.

    Args:
        image: uint8 [height, width, 3] RGB, 0 to 255.
        name: Its file name; a BreaKHis name states the magnification.
        magnification: The one the model was trained at, or ``None`` for all four.

    >>> white = np.full((40, 100, 3), 255, np.uint8)
    >>> for doubt in doubts_about(white, "SOB_B_A-14-22549AB-40-001.png", magnification=100):
    ...     print(doubt)
    its name says 40X, the model knows 100X only
    its sides are 2.50 to 1, those of a BreaKHis image 1.52 to 1
    hardly anything in it is stained
    """
    return (*_of_name(name, magnification), *_of_shape(image), *_of_colours(image))


def _of_name(name: str, magnification: int | None) -> Iterator[str]:
    stated = parse_image_name(name)
    if stated and magnification and stated.magnification != magnification:
        yield f"its name says {stated.magnification}X, the model knows {magnification}X only"


def _of_shape(image: NDArray[np.uint8]) -> Iterator[str]:
    height, width = image.shape[:2]
    if abs(width / height / _ASPECT - 1) > _ASPECT_TOLERANCE:
        yield f"its sides are {width / height:.2f} to 1, those of a BreaKHis image 1.52 to 1"


def _of_colours(image: NDArray[np.uint8]) -> Iterator[str]:
    small = resize_rgb(image, *_LOOKED_AT_PX)
    fault = estimate_stains(small).fault
    if fault == "little_tissue":
        yield "hardly anything in it is stained"
    elif fault:
        yield "it has hardly any colour of a stain"
    elif _green_uptake(small) < _LEAST_GREEN:
        yield "its colours are not those of haematoxylin and eosin"


def _green_uptake(image: NDArray[np.uint8]) -> float:
    """Optical density of tissue in green, as a multiple of the larger of red and blue."""
    density = np.log(LIGHT) - np.log(image.reshape(-1, 3) + 1.0)
    red, green, blue = density[density.mean(axis=1) >= MIN_DENSITY].mean(axis=0)
    return float(green / max(red, blue, 1e-9))
