"""Which augmented views of an image are kept as features, and which one a training step draws.

A frozen backbone gives the same features for the same pixels, so its answers to a few augmented
views of each image are computed once and drawn from ever after. The views stand at a few levels of
augmentation strength; a strength between two levels draws from both, nearer levels more often, so
that the mean strength is the one asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from breakhis_search.data.augmentation import NUMBERS_PER_IMAGE

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

PLAIN = 0
"""The view that is not changed at all: what is validated and served."""


@dataclass(frozen=True)
class ViewPolicy:
    """The views of every image.

    Attributes:
        levels: Strengths, evenly spaced from 0 to 1; at least 2.
        per_level: Views at each level; the first one at strength 0 is the image as it is.
    """

    levels: int = 3
    per_level: int = 2

    def __len__(self) -> int:
        """Return the number of views of an image."""
        return self.levels * self.per_level

    def strength_of(self, view: int) -> float:
        """Return the strength of a view.

        >>> [ViewPolicy(3, 2).strength_of(view) for view in range(6)]
        [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
        """
        return (view // self.per_level) / (self.levels - 1)

    def draw(self, strength: float, n: int, rng: np.random.Generator) -> IntArray:
        """Return the view of each of ``n`` drawn images, int64 [n], of mean strength ``strength``.

        >>> policy, rng = ViewPolicy(3, 2), np.random.default_rng(0)
        >>> views = policy.draw(0.25, 10_000, rng)
        >>> round(float(np.mean([policy.strength_of(v) for v in views])), 2)
        0.25
        """
        position = strength * (self.levels - 1)
        lower = min(int(position), self.levels - 2)
        level = lower + (rng.random(n) < position - lower)
        views: IntArray = level * self.per_level + rng.integers(0, self.per_level, n)
        return views


def numbers_of(sha256: str, view: int) -> FloatArray:
    """Return how a view of an image is changed, float32 [``NUMBERS_PER_IMAGE``] in [−1, 1].

    It follows from the content of the image and the number of the view alone, so that features are
    the same whoever computes them, and in whatever order.
    """
    digest = hashlib.sha256(f"{sha256}:{view}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return rng.uniform(-1.0, 1.0, NUMBERS_PER_IMAGE).astype(np.float32)
