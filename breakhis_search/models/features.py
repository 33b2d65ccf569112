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
    is_out_of_memory: Callable[[BaseException], bool] = lambda _: False,
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
        is_out_of_memory: Tells whether an error is want of memory: then half as many are taken.
        progress: Called with (images done, images in all).

    Returns:
        Row positions → parts of float32 [any, views, d] in their order, features as vectors.
    """

    def all_views(batch: IntArray, size: int) -> FloatArray:
        filled = np.resize(batch, size)
        pixels = np.asarray(images[filled])
        views = [
            _features(extractor, pixels, [sha256[int(row)] for row in filled], policy, view)
            for view in range(len(policy))
        ]
        return np.stack(views, axis=1)[: len(batch)]

    def compute(rows: IntArray) -> Iterator[FloatArray]:
        start, size = 0, batch_size
        while start < len(rows):
            batch = rows[start : start + size]
            try:
                found = all_views(batch, size)
            except Exception as error:  # want of memory has another class in every backend
                if size == 1 or not is_out_of_memory(error):
                    raise
                size //= 2
                continue
            yield found
            start += len(batch)
            if progress:
                progress(start, len(rows))

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
