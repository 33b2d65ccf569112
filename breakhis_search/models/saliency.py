"""Grad-CAM: which places of a picture raised the logit of a class. Needs Keras, on any backend.

Grad-CAM (R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017) weights each channel of the last convolutional feature map
A [h', w', c] by the mean gradient of the class logit in it, adds the channels up and keeps what is
positive: ``relu(sum_k mean(d logit / d A_k) A_k)``.

Keras 3 has no gradient function of its own, but its optimizers apply gradients on every backend:
an offset of zeros is added to A, and one step of plain gradient ascent at rate 1 on the logit moves
the offset by exactly the gradient. The model itself is only read: its layers are called in
inference mode through ``keras.Function``, which shares them without adding to their graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from breakhis_search.errors import ConfigError

FloatArray = npt.NDArray[np.float32]

BATCH_SIZE = 8
"""Images per pass: small, because nothing is gained from more and a backbone's maps are large."""

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
)
# What follows the map that is wanted: pooling makes it coarser, dropout leaves it as it is.
_PASSED_OVER = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.SpatialDropout2D,
)


@dataclass(frozen=True)
class Saliency:
    """Grad-CAM maps, or why there are none.

    Attributes:
        maps: float32 [n, h, w] in [0, 1]; the highest place of each map is 1, so maps of two
            images cannot be compared in strength. A map of zeros means that no place raised the
            logit. ``None`` where the model has no usable feature map.
        layer: Name of the layer whose feature map was used.
        grid: Height and width of that feature map in cells: how coarse the maps are.
        reason: In words why ``maps`` is ``None``, as a clause; empty otherwise.
    """

    maps: FloatArray | None
    layer: str = ""
    grid: tuple[int, int] = (0, 0)
    reason: str = ""


def grad_cam(
    model: Any, images: npt.NDArray[np.uint8], class_index: npt.NDArray[np.int64]
) -> Saliency:
    """Return for each image where it raised the logit of a class.

    Weights, trainability, compilation and graph of the model stay as they are.

    Args:
        model: A functional or sequential model from RGB in 0..255 to logits [n, K].
        images: uint8 [n, h, w, 3] of the model's input size.
        class_index: The class to explain for each image, int [n], each in 0..K-1.

    Raises:
        ConfigError: The images, classes and model do not belong together.
    """
    seam = find_seam(model)
    if isinstance(seam, str):
        return Saliency(None, reason=seam)
    _check_arguments(model, images, class_index)
    if not len(images):
        return Saliency(np.zeros(images.shape[:3], np.float32), seam.layer)
    parts = [
        _grad_cam_of_batch(seam, images[i : i + BATCH_SIZE], class_index[i : i + BATCH_SIZE])
        for i in range(0, len(images), BATCH_SIZE)
    ]
    coarse = np.concatenate(parts)
    height, width = coarse.shape[1:]
    return Saliency(_enlarge(coarse, images.shape[1:3]), seam.layer, (height, width))


@dataclass(frozen=True)
class Seam:
    """A model cut in two at a feature map that everything passes through.

    Attributes:
        to_map: Images, float32 [n, h, w, 3] → feature map [n, h', w', c].
        to_logits: Feature map → logits [n, K].
        layer: Name of the layer that gives the feature map.
    """

    to_map: Callable[[Any], Any]
    to_logits: Callable[[Any], Any]
    layer: str


def find_seam(model: Any) -> Seam | str:
    """Return a model cut at its last convolutional feature map, or why it cannot be, as a clause.

    Models inside the model are looked into. Pooling at the end is left to the second half, as
    Grad-CAM wants the map of the convolution: for VGG16 it has four times as many cells.
    """
    if not getattr(model, "inputs", None):
        return "the model has no graph to look for a feature map in"
    if not any(isinstance(node.operation, _CONVOLUTIONS) for node in _all_nodes(model)):
        return "the architecture has no convolutional layer"
    for seam, has_tokens in _seams(model):
        if has_tokens:
            return "its last feature map becomes a list of tokens, which Grad-CAM cannot follow"
        return seam
    return "no convolutional feature map of more than one cell lies on the way to the logits"


def _seams(model: Any) -> Iterator[tuple[Seam, bool]]:
    """Yield the seams of a model, last first, and whether tokens [n, t, d] come after each."""
    has_tokens, nodes = False, _nodes_last_first(model)
    for position, node in enumerate(nodes):
        if _is_model(node.operation):
            for inner, inner_has_tokens in _seams(node.operation):
                seam = _wrapped(inner, model, node)
                if seam is not None:
                    yield seam, has_tokens or inner_has_tokens
            has_tokens = has_tokens or any(map(_gives_tokens, _all_nodes(node.operation)))
            continue
        has_tokens = has_tokens or _gives_tokens(node)
        comes_from_convolution = any(map(_holds_convolution, nodes[position:]))
        if comes_from_convolution and _gives_map(node):
            seam = _seam_at(model, node)
            if seam is not None:
                yield seam, has_tokens


def _nodes_last_first(model: Any) -> list[Any]:
    """The calls of layers in a model's graph, those nearest to the output first."""
    graph = keras.Function(model.inputs, model.outputs)
    by_depth = graph._nodes_by_depth  # noqa: SLF001 - Keras has no public way from layer to call
    return [node for depth in sorted(by_depth) for node in by_depth[depth] if not node.is_input]


def _all_nodes(model: Any) -> Iterator[Any]:
    """Every call in a model's graph, those of models inside it too."""
    for node in _nodes_last_first(model):
        if _is_model(node.operation):
            yield from _all_nodes(node.operation)
        else:
            yield node


def _is_model(operation: Any) -> bool:
    return isinstance(operation, keras.Model) and bool(getattr(operation, "inputs", None))


def _holds_convolution(node: Any) -> bool:
    if _is_model(node.operation):
        return any(
            isinstance(inner.operation, _CONVOLUTIONS) for inner in _all_nodes(node.operation)
        )
    return isinstance(node.operation, _CONVOLUTIONS)


def _gives_map(node: Any) -> bool:
    """Tell whether a call gives one feature map of more than one cell, before any pooling."""
    if isinstance(node.operation, _PASSED_OVER) or len(node.output_tensors) != 1:
        return False
    shape = node.output_tensors[0].shape
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _gives_tokens(node: Any) -> bool:
    return any(len(tensor.shape) == 3 for tensor in node.output_tensors)


def _seam_at(model: Any, node: Any) -> Seam | None:
    """The model cut at the output of a call; ``None`` if something bypasses it."""
    feature_map = node.output_tensors[0]
    try:
        to_logits = keras.Function(feature_map, model.outputs[0])
    except ValueError:  # "Graph disconnected": a branch goes round it
        return None
    to_map = keras.Function(model.inputs[0], feature_map)
    return Seam(to_map, to_logits, node.operation.name)


def _wrapped(inner: Seam, model: Any, node: Any) -> Seam | None:
    """The seam of a model inside a model, as one of the outer model."""
    outer = _seam_at(model, node) if len(node.output_tensors) == 1 else None
    if outer is None or len(node.input_tensors) != 1:
        return None
    to_inner = _up_to(model, node.input_tensors[0])
    return Seam(
        lambda images: inner.to_map(to_inner(images)),
        lambda feature_map: outer.to_logits(inner.to_logits(feature_map)),
        inner.layer,
    )


def _up_to(model: Any, tensor: Any) -> Callable[[Any], Any]:
    if tensor is model.inputs[0]:
        return lambda images: images
    function: Callable[[Any], Any] = keras.Function(model.inputs[0], tensor)
    return function


class _ClassLogit(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    """Minus the logits of the one-hot classes, summed: descending it raises them."""

    def __init__(self) -> None:
        super().__init__(name="class_logit", reduction="sum")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return -keras.ops.sum(y_true * keras.ops.cast(y_pred, "float32"), axis=-1)


class _OffsetProbe(keras.Model):  # type: ignore[misc]  # keras has no types
    """The second half of a model behind an offset on the feature map; only the offset learns.

    ``call`` takes no ``training``, so the layers behind it run in inference mode also in a training
    step; Keras does not track them because they sit behind a function.
    """

    def __init__(self, seam: Seam, shape: tuple[int, ...]) -> None:
        super().__init__(dtype="float32")
        self._to_logits = seam.to_logits
        self.offset = self.add_weight(shape=shape, initializer="zeros", name="offset")

    def call(self, feature_map: Any) -> Any:
        return self._to_logits(feature_map + self.offset)


def _grad_cam_of_batch(
    seam: Seam, images: npt.NDArray[np.uint8], class_index: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the maps at the resolution of the feature map, not normalised, [n, h', w']."""
    feature_map = keras.ops.cast(seam.to_map(keras.ops.cast(images, "float32")), "float32")
    gradient = _gradient_of_logit(seam, feature_map, class_index)
    channel_weights = gradient.mean(axis=(1, 2), keepdims=True)
    activations = keras.ops.convert_to_numpy(feature_map)
    maps: FloatArray = np.maximum((channel_weights * activations).sum(axis=-1), 0.0)
    return maps


def _gradient_of_logit(
    seam: Seam, feature_map: Any, class_index: npt.NDArray[np.int64]
) -> FloatArray:
    """Return d logit / d feature map, float32 [n, h', w', c]."""
    n_classes = int(seam.to_logits(feature_map[:1]).shape[-1])
    probe = _OffsetProbe(seam, tuple(feature_map.shape))
    # Eagerly: the second half is a few layers, and compiling them costs more than running them.
    probe.compile(
        optimizer=keras.optimizers.SGD(learning_rate=1.0),
        loss=_ClassLogit(),
        run_eagerly=True,
        auto_scale_loss=False,
    )
    probe.train_on_batch(feature_map, np.eye(n_classes, dtype=np.float32)[class_index])
    gradient: FloatArray = keras.ops.convert_to_numpy(probe.offset)
    return gradient


def _enlarge(coarse: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """Return maps of the size of the images, each divided by its maximum."""
    height, width = size
    enlarged = np.stack(
        [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in coarse]
    )
    peaks = enlarged.max(axis=(1, 2), keepdims=True)
    maps: FloatArray = np.divide(
        enlarged, peaks, out=np.zeros_like(enlarged), where=peaks > 0
    ).astype(np.float32)
    return maps


def _check_arguments(
    model: Any, images: npt.NDArray[np.uint8], class_index: npt.NDArray[np.int64]
) -> None:
    wanted, n_classes = tuple(model.inputs[0].shape[1:]), model.outputs[0].shape[-1]
    fits = images.ndim == 4 and all(
        want in {None, got} for want, got in zip(wanted, images.shape[1:], strict=True)
    )
    if images.dtype != np.uint8 or not fits:
        raise ConfigError(
            "the images do not fit the model",
            expected=f"uint8 [n, {', '.join(map(str, wanted))}]",
            received=f"{images.dtype} {list(images.shape)}",
        )
    if (
        class_index.shape != (len(images),)
        or not ((class_index >= 0) & (class_index < n_classes)).all()
    ):
        raise ConfigError(
            "the classes to explain do not fit",
            expected=f"one index from 0 to {n_classes - 1} for each of {len(images)} images",
            received=f"shape {list(class_index.shape)}, values {sorted(set(class_index.flat))[:9]}",
        )
