"""Models built once for all tests of builders: small images, random weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from breakhis_search.models.building import build_model
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.weights import ResolvedWeights

INPUT_SHAPE = (64, 96, 3)
N_CLASSES = 8


@pytest.fixture(scope="session")
def built_model() -> Callable[[str], Any]:
    """Build the model of an architecture with default hyperparameters, once a session."""

    @functools.cache
    def build(architecture: str) -> Any:
        return build_model(
            architecture,
            SpaceRecorder(),
            input_shape=INPUT_SHAPE,
            n_classes=N_CLASSES,
            weights=ResolvedWeights(architecture, "none"),
        )

    return build


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.uint8]:
    """Two random RGB images, uint8 [2, 64, 96, 3]."""
    return np.random.default_rng(0).integers(0, 256, (2, *INPUT_SHAPE), dtype=np.uint8)
