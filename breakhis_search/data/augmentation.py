"""Augmentation on the device, one ``strength`` in [0, 1] for everything but the exact symmetries.

Flips and half turns (quarter turns where the image is square) are always applied: tissue has no
up. Strength scales rotation, zoom, contrast, brightness and HED stain jitter. Works on batches,
in ``keras.ops`` only, so that it compiles into the training step on every Keras backend.
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


def augment(images: Any, strength: Any, seed_generator: Any) -> Any:
    """Return randomly changed images, float32 [n, h, w, 3] in 0–255.

    Args:
        images: RGB images, float32 [n, h, w, 3] in 0–255.
        strength: Scalar in [0, 1] (a number, or a variable of the compiled step).
        seed_generator: A ``keras.random.SeedGenerator``.
    """
    import keras

    shape = (keras.ops.shape(images)[0], NUMBERS_PER_IMAGE)
    return transform(images, strength, keras.random.uniform(shape, -1.0, 1.0, seed=seed_generator))


def transform(images: Any, strength: Any, numbers: Any) -> Any:
    """Return images changed as ``numbers`` say: the same numbers change an image the same way.

    Args:
        images: RGB images, float32 [n, h, w, 3] in 0–255.
        strength: Scalar in [0, 1].
        numbers: float32 [n, ``NUMBERS_PER_IMAGE``] in [−1, 1].
    """
    parts, start = {}, 0
    for name, columns in _NUMBERS.items():
        parts[name] = numbers[:, start : start + columns]
        start += columns
    images = _turn(images, parts["flip"], parts["geometry"] * strength)
    images = _jitter_stain(images, parts["stain"] * strength)
    return _jitter_light(images, parts["light"] * strength)


def _turn(images: Any, coins: Any, numbers: Any) -> Any:
    """Mirror, rotate about the centre and zoom, with mirrored borders, in one pass.

    Left–right and up–down are mirrored with probability ½ each (together: half turns); square
    images are also transposed (with the mirrors: quarter turns). Without rotation and zoom every
    pixel is some pixel of the image, exactly.
    """
    from keras import ops

    height, width = images.shape[1:3]
    angle = numbers[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    scale = 1.0 / (1.0 + numbers[:, 1] * MAX_ZOOM)
    cos, sin = scale * ops.cos(angle), scale * ops.sin(angle)
    # Rows of the output-to-input map about the centre: where x and y of a pixel come from.
    rows = [(cos, -sin), (sin, cos)]
    if height == width:
        turned = coins[:, 2] > 0
        straight_x, straight_y = rows
        rows = [
            tuple(ops.where(turned, b, a) for a, b in zip(straight_x, straight_y, strict=True)),
            tuple(ops.where(turned, a, b) for a, b in zip(straight_x, straight_y, strict=True)),
        ]
    mirrors = [ops.where(coins[:, i] > 0, -1.0, 1.0) for i in range(2)]
    from_x, from_y = [
        [mirror * a, mirror * b] for mirror, (a, b) in zip(mirrors, rows, strict=True)
    ]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    zero = ops.zeros_like(cos)
    # [a0 a1 a2; b0 b1 b2], as ops.image.affine_transform wants it.
    transform = ops.stack(
        [
            *from_x, middle_x - from_x[0] * middle_x - from_x[1] * middle_y,
            *from_y, middle_y - from_y[0] * middle_x - from_y[1] * middle_y,
            zero, zero,
        ],
        axis=1,
    )  # fmt: skip
    return ops.image.affine_transform(
        images, transform, interpolation="bilinear", fill_mode="reflect"
    )


def _per_image(values: Any) -> Any:
    """[n] → [n, 1, 1, 1]."""
    from keras import ops

    return ops.reshape(values, (-1, 1, 1, 1))


def _jitter_stain(images: Any, numbers: Any) -> Any:
    """Scale and shift haematoxylin, eosin and the rest in optical density."""
    from keras import ops

    density = -ops.log((ops.clip(images, 0.0, 255.0) + 1.0) / 256.0)
    stains = ops.matmul(density, _HED_FROM_RGB)
    scale = 1.0 + MAX_STAIN_SCALE * ops.reshape(numbers[:, :3], (-1, 1, 1, 3))
    shift = MAX_STAIN_SHIFT * ops.reshape(numbers[:, 3:], (-1, 1, 1, 3))
    density = ops.matmul(stains * scale + shift, _RGB_FROM_HED)
    return ops.clip(256.0 * ops.exp(-density) - 1.0, 0.0, 255.0)


def _jitter_light(images: Any, numbers: Any) -> Any:
    """Contrast about the mean of the image, then brightness."""
    from keras import ops

    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    contrast = _per_image(1.0 + MAX_CONTRAST * numbers[:, 0])
    shift = _per_image(255.0 * MAX_BRIGHTNESS * numbers[:, 1])
    return ops.clip((images - mean) * contrast + mean + shift, 0.0, 255.0)
