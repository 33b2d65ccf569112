"""What a part of a model that does not learn says of the views of images. Needs Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from breakhis_search.data.augmentation import transform
from breakhis_search.data.views import PLAIN, ViewPolicy, numbers_of

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def feature_computer(
    extractor: Any,
    images: npt.NDArray[np.uint8],
    sha256: Sequence[str],
    policy: ViewPolicy,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Callable[[IntArray], Iterator[FloatArray]]:
    """Return a function that gives the features of images, some at a time.

    Args:
        extractor: RGB in 0–255, float32 [b, h, w, 3] → features, float32 [b, …]; nothing of it is
            changed.
        images: All images as the model sees them, uint8 [n, h, w, 3].
        sha256: Content digest of each.
        policy: Which views of each image.
        batch_size: Images per step; the last batch is filled up, because a partial one retraces.
        progress: Called with (images done, images in all).

    Returns:
        Row positions → parts of float32 [any, views, d] in their order, features as vectors.
    """

    def compute(rows: IntArray) -> Iterator[FloatArray]:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            filled = np.resize(batch, batch_size)
            pixels = np.asarray(images[filled])
            views = [
                _features(extractor, pixels, [sha256[int(row)] for row in filled], policy, view)
                for view in range(len(policy))
            ]
            yield np.stack(views, axis=1)[: len(batch)]
            if progress:
                progress(start + len(batch), len(rows))

    return compute


def _features(
    extractor: Any,
    pixels: npt.NDArray[np.uint8],
    sha256: Sequence[str],
    policy: ViewPolicy,
    view: int,
) -> FloatArray:
    """Features of one view of a batch, float32 [b, d]."""
    seen: Any = pixels.astype(np.float32)
    if view != PLAIN:
        numbers = np.stack([numbers_of(digest, view) for digest in sha256])
        seen = transform(keras.ops.convert_to_tensor(seen), policy.strength_of(view), numbers)
    features: FloatArray = np.asarray(extractor.predict_on_batch(seen), dtype=np.float32)
    return features.reshape(len(features), -1)
