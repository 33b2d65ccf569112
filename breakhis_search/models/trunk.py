"""The part of a pretrained backbone that does not learn: its trunk, and the tail behind it.

While the last layers of a backbone are fine-tuned, everything before them answers the same to the
same pixels, trial after trial. The cut is the last place before the first learning layer that all
information passes as one tensor. Needs Keras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from breakhis_search.models.heads import FEATURES_SUFFIX


@dataclass(frozen=True)
class Trunk:
    """A model of ours cut in two; all layers are shared with it.

    Attributes:
        name: Of the layer that the trunk ends with.
        shape: Of what it gives for an image, such as (10, 15, 512).
        extractor: RGB in 0–255, float32 [n, h, w, 3] → activations [n, *shape].
        tail: Activations, float32 [n, *shape] → features, float32 [n, d].
    """

    name: str
    shape: tuple[int, ...]
    extractor: Any
    tail: Any

    @property
    def width(self) -> int:
        """How many numbers it gives for an image."""
        return math.prod(self.shape)


def cut_trunk(model: Any) -> Trunk | None:
    """Return the trunk of a transfer model of ours as it is trainable now.

    Returns:
        ``None`` where nothing of the backbone learns, or what learns can't be cut off.
    """
    backbone = _backbone_of(model)
    if backbone is None:
        return None
    cut = _cut_operation(backbone.operations)
    if cut is None:
        return None
    pooling = next(layer for layer in model.layers if layer.name.endswith(FEATURES_SUFFIX))
    shape = tuple(int(n) for n in cut.output.shape[1:])
    before = keras.Model(model.input, _input_of(backbone, model))
    until = keras.Model(backbone.input, cut.output)
    behind = keras.Model(cut.output, backbone.output)
    activations = keras.Input(shape, dtype="float32", name="activations")
    return Trunk(
        name=cut.name,
        shape=shape,
        extractor=keras.Model(model.input, until(before(model.input))),
        tail=keras.Model(activations, pooling(behind(activations))),
    )


def _backbone_of(model: Any) -> Any | None:
    return next((layer for layer in model.layers if hasattr(layer, "layers")), None)


def _input_of(backbone: Any, model: Any) -> Any:
    """The tensor of the outer graph that the backbone is called with."""
    return model.operations[model.operations.index(backbone) - 1].output


def _cut_operation(operations: Sequence[Any]) -> Any | None:
    """The last one before the first that learns whose output is all that later ones see.

    Of several with nothing to compute by weights in between (a padding, an activation), the one
    with the smallest output.
    """
    first = next((i for i, operation in enumerate(operations) if _learns(operation)), None)
    if first is None:
        return None
    last_use = {id(t): i for i, operation in enumerate(operations) for t in _inputs_of(operation)}
    still_open: set[int] = set()
    cuts: list[Any] = []
    computes = False  # by weights, since the last cut
    for i, operation in enumerate(operations[:first]):
        computes = computes or bool(getattr(operation, "weights", None))
        still_open = {t for t in still_open | {id(operation.output)} if last_use.get(t, first) > i}
        if still_open == {id(operation.output)}:
            cuts = [operation] if computes else [*cuts, operation]
            computes = False
    return min(cuts, key=lambda operation: math.prod(operation.output.shape[1:]), default=None)


def _learns(operation: Any) -> bool:
    return bool(getattr(operation, "trainable_variables", None))


def _inputs_of(operation: Any) -> list[Any]:
    if isinstance(operation, keras.layers.InputLayer):
        return []
    inputs = operation.input
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]
