"""Mirroring, rotation and zoom on the host, by OpenCV.

On a CPU TensorFlow's projective transform takes as long as a small network's forward pass, twelve
times as long as OpenCV's (docs/speed.md); and here a thread can do it ahead of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data.augmentation import NUMBERS_PER_IMAGE, maps_of

Images = npt.NDArray[np.uint8]


def turn(images: Images, strength: float, numbers: npt.NDArray[np.float32]) -> Images:
    """Return images that are mirrored, rotated and zoomed as on the device, uint8 [n, h, w, 3].

    Args:
        images: uint8 [n, h, w, 3].
        strength: In [0, 1].
        numbers: How each is changed, float32 [n, ``NUMBERS_PER_IMAGE``] in [−1, 1].
    """
    height, width = images.shape[1:3]
    maps = np.array(maps_of(numbers, strength, height, width, np), dtype=np.float64)
    turned = np.empty_like(images)
    for image, result, i in zip(images, turned, range(len(images)), strict=True):
        cv2.warpAffine(
            image,
            maps[:, :, i],
            (width, height),
            dst=result,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
    return turned


def turned_at_random(
    images: Any, strength: float, rng: np.random.Generator
) -> Callable[[npt.NDArray[np.int64]], Images]:
    """Return what gives rows of images, each turned anew.

    Args:
        images: uint8 [all, h, w, 3], or a view that gives rows of such.
        strength: In [0, 1].
        rng: Draws how.
    """

    def take(rows: npt.NDArray[np.int64]) -> Images:
        numbers = rng.uniform(-1.0, 1.0, (len(rows), NUMBERS_PER_IMAGE)).astype(np.float32)
        return turn(np.asarray(images[rows]), strength, numbers)

    return take
