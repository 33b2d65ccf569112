"""A small convolutional network trained from scratch. Needs Keras and keras-tuner."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
from keras import layers

from breakhis_search.models.heads import attach_head, pool_features
from breakhis_search.models.space import HyperParameters, declare_small_cnn

MAX_FILTERS = 256
"""Where the doubling of filters ends, so that five blocks stay a *small* network."""

BATCH_NORM_MOMENTUM = 0.9
"""Keras' 0.99 needs hundreds of steps to forget its start; an epoch here is some dozens."""


class SmallCNN(keras_tuner.HyperModel):  # type: ignore[misc]  # keras-tuner has no types
    """Blocks of convolution, max pooling, batch normalisation and ReLU; filters double per block.

    Pooled first, a quarter of the numbers is normalised and rectified: on a CPU a step takes 0.57
    of the time that it takes in the usual order (docs/speed.md). Where the scale of the
    normalisation is positive, as it starts, the two orders give the same up to its statistics. The
    last block keeps the usual order: its map before pooling is what Grad-CAM explains.

    Args:
        input_shape: Height and width in px, and 3.
        n_classes: The number of logits.
    """

    def __init__(self, *, input_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(name="small_cnn")
        self.input_shape = input_shape
        self.n_classes = n_classes

    def build(self, hp: HyperParameters) -> Any:
        """Return the uncompiled ``keras.Model``: RGB in 0..255 → float32 logits [n, K]."""
        if "small_cnn/blocks" not in hp:
            declare_small_cnn(hp)
        image = keras.Input(self.input_shape, dtype="float32", name="image")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale", dtype="float32")(image)
        blocks, kernel_size = hp.get("small_cnn/blocks"), hp.get("small_cnn/kernel_size")
        for block in range(1, blocks + 1):
            filters = min(hp.get("small_cnn/filters") * 2 ** (block - 1), MAX_FILTERS)
            x = _add_convolution(x, f"block{block}", filters, kernel_size)
            pool = layers.MaxPooling2D(name=f"block{block}_pool")
            x = _normalise(pool(x), block) if block < blocks else pool(_normalise(x, block))
        logits = attach_head(pool_features(x, "small_cnn"), hp, self.n_classes)
        return keras.Model(image, logits, name="small_cnn")


def _add_convolution(x: Any, block: str, filters: int, kernel_size: int) -> Any:
    return layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        use_bias=False,  # the normalisation after it has one
        kernel_initializer="he_normal",
        name=f"{block}_conv",
    )(x)


def _normalise(x: Any, block: int) -> Any:
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"block{block}_bn")(x)
    return layers.ReLU(name=f"block{block}_relu")(x)
