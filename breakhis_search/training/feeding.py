"""Brings batches to where a step runs, so that no step waits for its input.

On a GPU all images lie in its memory where they fit, and a batch is gathered there. Else a thread
gathers the next batches while the present one trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from breakhis_search.training.devices import Device

IntArray = npt.NDArray[np.int64]

RESIDENT_SHARE = 0.25
"""Of a GPU's memory that images may take: the model, its momenta and activations need the rest."""

_AHEAD = 2  # batches that are gathered before they are asked for


class Feed(Protocol):
    """Inputs by row."""

    def batches(self, rows: IntArray) -> Iterator[Any]:
        """Yield the inputs of one batch after the other.

        Args:
            rows: Rows of every batch, int64 [batches, b].
        """


class HostFeed:
    """Inputs in the memory of the host, gathered ahead by a thread.

    Args:
        take: Rows of a batch, int64 [b] → its inputs.
    """

    def __init__(self, take: Callable[[IntArray], Any]) -> None:
        self._take = take

    def batches(self, rows: IntArray) -> Iterator[Any]:
        """Yield batches, always some of them ahead."""
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
            later = iter(rows)
            waiting = deque(pool.submit(self._ready, batch) for batch in islice(later, _AHEAD))
            while waiting:
                ready = waiting.popleft().result()
                waiting.extend(pool.submit(self._ready, batch) for batch in islice(later, 1))
                yield ready

    def _ready(self, rows: IntArray) -> Any:
        return keras.ops.convert_to_tensor(self._take(rows))


class ResidentFeed:
    """Inputs in the memory of the device.

    Args:
        inputs: All of them, [n, …].
    """

    def __init__(self, inputs: npt.NDArray[Any]) -> None:
        self._inputs = keras.ops.convert_to_tensor(inputs)

    def batches(self, rows: IntArray) -> Iterator[Any]:
        """Yield batches, each gathered on the device when its turn comes."""
        for batch in rows.astype(np.int32):
            yield keras.ops.take(self._inputs, batch, axis=0)


class Feeds:
    """The feeds of a process: what lies on the device is brought there once.

    Args:
        device: Where it trains.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._resident: dict[int, tuple[Any, ResidentFeed]] = {}

    def of(self, images: Any) -> Feed:
        """Return the feed of images.

        Args:
            images: uint8 [n, h, w, 3]; a view that computes what it is asked for stays on the host.
        """
        if id(images) in self._resident:
            return self._resident[id(images)][1]
        if not isinstance(images, np.ndarray) or not self._fits(images):
            return HostFeed(lambda rows: np.asarray(images[rows]))
        feed = ResidentFeed(images)
        self._resident[id(images)] = (images, feed)  # kept, so that its id stays its own
        return feed

    def _fits(self, images: npt.NDArray[Any]) -> bool:
        held: int = sum(other.nbytes for other, _ in self._resident.values())
        return bool(held + images.nbytes <= RESIDENT_SHARE * self._device.memory_bytes)
