"""The batch size that a GPU is best used with: a few timed steps of each candidate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from breakhis_search.training.compilation import CompiledPhase
from breakhis_search.training.devices import is_out_of_memory
from breakhis_search.training.steps import EpochSteps

USUAL = 32
"""What learning rates of the shipped studies are made for; also the least that is tried."""

LARGEST = 256

STEPS_PER_EPOCH = 16
"""An epoch of fewer steps learns too little from each image, however fast it is."""

WORTH = 1.15
"""How much more images per second a batch of double size must bring: more is learnt from more
steps."""

_WARM, _TIMED = 2, 4


def find_batch_size(
    compiled: CompiledPhase, image_shape: tuple[int, int, int], *, training_images: int
) -> int:
    """Return the batch size from which on doubling it is not worth it any more.

    Args:
        compiled: The step that needs most: all of the model trains. Its weights are changed.
        image_shape: Height and width in px, and 3.
        training_images: In a fold.

    Returns:
        A power of 2 times :data:`USUAL`, at most :data:`LARGEST`, and no more than leaves
        :data:`STEPS_PER_EPOCH` steps to an epoch; :data:`USUAL` where even that does not fit: the
        trial will say so.
    """
    best, best_rate = USUAL, 0.0
    for size in _sizes(training_images):
        try:
            rate = images_per_second(compiled, image_shape, size)
        except Exception as error:
            if is_out_of_memory(error):
                return best
            raise
        if rate < WORTH * best_rate:
            return best
        best, best_rate = size, rate
    return best


def _sizes(training_images: int) -> Iterator[int]:
    size = USUAL
    while size == USUAL or (size <= LARGEST and size * STEPS_PER_EPOCH <= training_images):
        yield size
        size *= 2


def images_per_second(
    compiled: CompiledPhase,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    steps: int = _TIMED,
) -> float:
    """Return how many images the step trains on in a second, from a batch that lies ready.

    Args:
        compiled: The step; its weights are changed.
        image_shape: Height and width in px, and 3.
        batch_size: Images per step.
        steps: How many are timed.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *image_shape), dtype=np.uint8)
    batch: Any = keras.ops.convert_to_tensor(images)
    classes = compiled.model.classes
    _train(compiled, batch, _WARM, batch_size, classes)
    start = time.perf_counter()
    _train(compiled, batch, steps, batch_size, classes)
    return steps * batch_size / (time.perf_counter() - start)


def _train(compiled: CompiledPhase, batch: Any, steps: int, batch_size: int, classes: int) -> None:
    y = np.arange(batch_size) % classes
    epoch = EpochSteps(
        rows=np.zeros((steps, batch_size), np.int64),
        targets=np.tile(np.eye(classes, dtype=np.float32)[y], (steps, 1, 1)),
        weights=np.ones((steps, batch_size), np.float32),
        rates=np.full(steps, 1e-6, np.float32),
    )
    compiled.train([batch] * steps, epoch)
