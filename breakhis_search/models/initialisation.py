"""New initial weights for a model that is there already. Needs Keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from breakhis_search.models.architectures import get_architecture
from breakhis_search.models.heads import layers_of_head
from breakhis_search.models.weights import ResolvedWeights


def can_be_initialised(architecture: str, weights: ResolvedWeights) -> bool:
    """Tell whether :func:`initialise` knows the initial weights of an architecture.

    Foreign models, and backbones without pretrained weights, are built anew for new weights.
    """
    family = get_architecture(architecture).family
    return family == "small_cnn" or (family == "transfer" and weights.sha256 is not None)


def initialise(model: Any, weights: ResolvedWeights, seed: int) -> None:
    """Draw the initial weights of all that is not pretrained, from a seed alone.

    They follow the distributions the layers were built with; pretrained weights are left as they
    are.

    Args:
        model: What ``build_model`` gave for an architecture that :func:`can_be_initialised`.
        weights: Its pretrained weights.
        seed: Of the draws.
    """
    layers = layers_of_head(model) if weights.sha256 is not None else model.layers
    seeds = np.random.SeedSequence(seed)
    for layer in layers:
        for variable in layer.weights:
            _draw(layer, variable, int(seeds.spawn(1)[0].generate_state(1)[0]))


def _draw(layer: Any, variable: Any, seed: int) -> None:
    initializer = getattr(layer, f"{variable.name}_initializer")
    config = initializer.get_config()
    if "seed" in config:
        initializer = type(initializer).from_config({**config, "seed": seed})
    variable.assign(initializer(variable.shape, variable.dtype))
