"""What a sampling strategy is: a function that draws images of the training rows.

The strategies of :mod:`breakhis_search.data.sampling` are such functions, and so is any
``module:function`` of the user's own that a study file names under ``sampling/strategy``. What one
of those gives is checked at every call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from breakhis_search.data.taxonomy import TUMOR_TYPES, Task, class_names
from breakhis_search.errors import ConfigError, TrialFailure
from breakhis_search.own_code import load_function, tried_on

IntArray = npt.NDArray[np.int64]

STRATEGY = "sampling/strategy"
"""The hyperparameter that names one."""


@dataclass(frozen=True)
class TrainingRows:
    """The training images of one fold, as far as sampling needs to know them.

    Attributes:
        y: Class index of each image, int64 [n].
        types: Tumour type of each image, str [n].
        groups: Patient group of each image, str [n].
    """

    y: IntArray
    types: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]


class Draw(Protocol):
    """A sampling strategy."""

    def __call__(self, rows: TrainingRows, length: int, rng: np.random.Generator, /) -> Any:
        """Return the images to train on next, as positions in ``rows``.

        An epoch is ``length`` of them, full batches only: it is drawn on until they are enough, and
        what is too much is left out. So one call may give fewer or more.

        Args:
            rows: The training images; they are the same at every call of a fold.
            length: How many an epoch has.
            rng: Source of all randomness: the same state must give the same images.

        Returns:
            int [m], m ≥ 1, each from 0 to n - 1.
        """


@cache
def load_draw(name: str) -> Draw:
    """Return a strategy of the user's own that checks what it gives.

    Args:
        name: ``module:function``.

    Raises:
        ConfigError: There is no such function.
    """
    own = load_function(name, role="sampling strategy", key=f"space.{STRATEGY}")

    def draw(rows: TrainingRows, length: int, rng: np.random.Generator, /) -> IntArray:
        try:
            drawn = own(rows, length, rng)
        except Exception as error:  # someone else's code: whatever it raises ends this trial alone
            raise TrialFailure(
                f"{name} cannot draw an epoch",
                received=f"{type(error).__name__}: {error}",
                remedy=f"correct it, or take it out of space.{STRATEGY}",
            ) from error
        return _checked(name, drawn, len(rows.y))

    return draw


def _checked(name: str, drawn: Any, n: int) -> IntArray:
    """Return what was drawn, int64 [m], where it can be trained on."""
    order = np.asarray(drawn)
    if order.ndim != 1 or not order.size or not np.issubdtype(order.dtype, np.integer):
        received = f"{order.dtype} {list(order.shape)}"
    elif order.min() < 0 or order.max() >= n:
        received = f"positions from {order.min()} to {order.max()}"
    else:
        return order.astype(np.int64)
    raise TrialFailure(
        f"{name} drew no epoch",
        expected=f"positions of training images, int [m] with m ≥ 1, each from 0 to {n - 1}",
        received=received,
        remedy="correct what it returns",
    )


_EXAMPLE_LENGTH = 64


def check_draw(name: str, task: Task) -> None:
    """Try a strategy of the user's own on a small example, before anything is trained.

    Args:
        name: ``module:function``.
        task: Of the study: what the classes are.

    Raises:
        ConfigError: There is no such function, it cannot draw from the example, or it draws
            something else from the same state of ``rng``.
    """
    draw, rows = load_draw(name), _example_rows(task)
    with tried_on(f"{len(rows.y)} images, two patients of every type"):
        first, again = (draw(rows, _EXAMPLE_LENGTH, np.random.default_rng(0)) for _ in range(2))
    if not np.array_equal(first, again):
        raise ConfigError(
            f"{name} draws other images from the same random state, so that no trial could be"
            " repeated",
            expected="all randomness from the rng it is given",
            remedy="use rng in place of random, np.random or anything kept between calls",
        )


def _example_rows(task: Task) -> TrainingRows:
    """Two patients of every tumour type, with three images and with five."""
    names, images = class_names(task), []
    for kind in TUMOR_TYPES:
        y = names.index(kind.label if task == "binary" else kind.name)
        for patient, count in (("1", 3), ("2", 5)):
            images += [(y, kind.name, f"{kind.code}-{patient}")] * count
    classes, types, groups = zip(*images, strict=True)
    return TrainingRows(np.array(classes), np.array(types), np.array(groups))
