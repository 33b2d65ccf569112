"""Augmentation, one ``strength`` in [0, 1] for everything but the exact symmetries.

Flips and half turns (quarter turns where the image is square) are always applied: tissue has no
up. Strength scales rotation, zoom, contrast, brightness and HED stain jitter. Works on batches,
in ``keras.ops`` only, so that it compiles into the training step on every Keras backend. On a CPU
the part that moves pixels is better done by OpenCV: :mod:`breakhis_search.data.turning`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Stain vectors of haematoxylin, eosin and DAB in optical density, rows normalised:
# A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
# deconvolution", Anal Quant Cytol Histol 23, 2001.
_RGB_FROM_HED = np.array(
    [[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], dtype=np.float32
)
_RGB_FROM_HED /= np.linalg.norm(_RGB_FROM_HED, axis=1, keepdims=True)
_HED_FROM_RGB = np.linalg.inv(_RGB_FROM_HED).astype(np.float32)

# What strength 1 means. Ranges after Tellez et al., "Quantifying the effects of data augmentation
# and stain color normalization in convolutional neural networks for computational pathology",
# Medical Image Analysis 58, 2019 (their "strong" colour setting for stain, halved for brightness).
MAX_ROTATION_DEGREES = 45.0
MAX_ZOOM = 0.25
MAX_CONTRAST = 0.4
MAX_BRIGHTNESS = 0.15  # of full scale
MAX_STAIN_SCALE = 0.2
MAX_STAIN_SHIFT = 0.05  # optical density


_NUMBERS = {"flip": 3, "geometry": 2, "stain": 6, "light": 2}
NUMBERS_PER_IMAGE = sum(_NUMBERS.values())
"""How many numbers in [−1, 1] say how one image is changed."""


def augment(images: Any, strength: Any, seed_generator: Any, *, turns: bool = True) -> Any:
    """Return randomly changed images, float32 [n, h, w, 3] in 0–255.

    Args:
        images: RGB images, float32 [n, h, w, 3] in 0–255.
        strength: Scalar in [0, 1] (a number, or a variable of the compiled step).
        seed_generator: A ``keras.random.SeedGenerator``.
        turns: Whether pixels are moved as well, not only their colours changed.
    """
    import keras

    shape = (keras.ops.shape(images)[0], NUMBERS_PER_IMAGE)
    numbers = keras.random.uniform(shape, -1.0, 1.0, seed=seed_generator)
    return transform(images, strength, numbers, turns=turns)


def transform(images: Any, strength: Any, numbers: Any, *, turns: bool = True) -> Any:
    """Return images changed as ``numbers`` say: the same numbers change an image the same way.

    Args:
        images: RGB images, float32 [n, h, w, 3] in 0–255.
        strength: Scalar in [0, 1].
        numbers: float32 [n, ``NUMBERS_PER_IMAGE``] in [−1, 1].
        turns: Whether pixels are moved as well, not only their colours changed.
    """
    parts = _by_part(numbers)
    if turns:
        images = _turn(images, parts["flip"], parts["geometry"] * strength)
    return _recolour(images, parts["stain"] * strength, parts["light"] * strength)


def _by_part(numbers: Any) -> dict[str, Any]:
    parts, start = {}, 0
    for name, columns in _NUMBERS.items():
        parts[name] = numbers[:, start : start + columns]
        start += columns
    return parts


def maps_of(numbers: Any, strength: Any, height: int, width: int, ops: Any) -> list[list[Any]]:
    """Return where the pixels of changed images come from: an affine map for each.

    Left–right and up–down are mirrored with probability ½ each (together: half turns); square
    images are also transposed (with the mirrors: quarter turns). Rotation and zoom are about the
    centre. Without them every pixel is some pixel of the image, exactly.

    Args:
        numbers: float32 [n, ``NUMBERS_PER_IMAGE``] in [−1, 1].
        strength: Scalar in [0, 1].
        height: Of the images, in px.
        width: Of the images, in px.
        ops: What computes: ``keras.ops`` or ``numpy``.

    Returns:
        ``[[a, b, c], [d, e, f]]``, each [n]: (x, y) shows what was at (ax + by + c, dx + ey + f).
    """
    parts = _by_part(numbers)
    return _maps(parts["flip"], parts["geometry"] * strength, height, width, ops)


def _maps(coins: Any, numbers: Any, height: int, width: int, ops: Any) -> list[list[Any]]:
    angle = numbers[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    scale = 1.0 / (1.0 + numbers[:, 1] * MAX_ZOOM)
    cos, sin = scale * ops.cos(angle), scale * ops.sin(angle)
    rows = [(cos, -sin), (sin, cos)]
    if height == width:
        turned = coins[:, 2] > 0
        straight_x, straight_y = rows
        rows = [
            tuple(ops.where(turned, b, a) for a, b in zip(straight_x, straight_y, strict=True)),
            tuple(ops.where(turned, a, b) for a, b in zip(straight_x, straight_y, strict=True)),
        ]
    mirrors = [ops.where(coins[:, i] > 0, -1.0, 1.0) for i in range(2)]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    maps = []
    for mirror, (a, b), middle in zip(mirrors, rows, (middle_x, middle_y), strict=True):
        from_x, from_y = mirror * a, mirror * b
        maps.append([from_x, from_y, middle - from_x * middle_x - from_y * middle_y])
    return maps


def _turn(images: Any, coins: Any, numbers: Any) -> Any:
    """Mirror, rotate about the centre and zoom, with mirrored borders, in one pass."""
    from keras import ops

    height, width = images.shape[1:3]
    of_x, of_y = _maps(coins, numbers, height, width, ops)
    zero = ops.zeros_like(of_x[0])
    # [a0 a1 a2; b0 b1 b2], as ops.image.affine_transform wants it.
    transform = ops.stack([*of_x, *of_y, zero, zero], axis=1)
    return ops.image.affine_transform(
        images, transform, interpolation="bilinear", fill_mode="reflect"
    )


def _per_image(values: Any) -> Any:
    """[n] → [n, 1, 1, 1]."""
    from keras import ops

    return ops.reshape(values, (-1, 1, 1, 1))


def _recolour(images: Any, stain: Any, light: Any) -> Any:
    """Scale and shift the stains in optical density, then contrast about the mean and brightness.

    Density is log 256 − log(rgb + 1). To separate, scale, shift and mix again is one affine map of
    log(rgb + 1) for each image; what each pixel then goes through is as little as can be, because
    on a CPU every pass over a batch counts.

    Args:
        images: float32 [n, h, w, 3] in 0–255.
        stain: Scale and shift of haematoxylin, eosin and the rest, float32 [n, 6] in [−1, 1].
        light: Contrast and brightness, float32 [n, 2] in [−1, 1].
    """
    from keras import ops

    scale = 1.0 + MAX_STAIN_SCALE * stain[:, :3]
    mix = ops.matmul(_HED_FROM_RGB * scale[:, None, :], _RGB_FROM_HED)
    shift = ops.matmul(MAX_STAIN_SHIFT * stain[:, 3:], _RGB_FROM_HED)
    offset = math.log(256.0) * (1.0 - ops.sum(mix, axis=1)) - shift
    shape = ops.shape(images)
    pixels = ops.reshape(images, (shape[0], -1, 3))
    seen = ops.exp(ops.matmul(ops.log(pixels + 1.0), mix) + offset[:, None, :])
    seen = ops.clip(ops.reshape(seen, shape), 1.0, 256.0)
    mean = ops.mean(seen, axis=(1, 2, 3), keepdims=True) - 1.0
    contrast = _per_image(1.0 + MAX_CONTRAST * light[:, 0])
    brightness = _per_image(255.0 * MAX_BRIGHTNESS * light[:, 1])
    return ops.clip(seen * contrast + (mean * (1.0 - contrast) + brightness - contrast), 0.0, 255.0)
