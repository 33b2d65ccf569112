"""The graph of a foreign model: checked, freed of its softmax, and made to take RGB in 0..255.

Needs Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from breakhis_search.errors import ConfigError, TrialFailure


def check_graph(model: Any, name: str, input_shape: tuple[int, int, int], n_classes: int) -> None:
    """Raise unless ``model`` is a graph of stock layers from an image to ``n_classes`` numbers.

    Raises:
        ConfigError: It is not such a classifier.
        TrialFailure: It holds a Lambda or a layer that is not Keras' own.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *input_shape))
    shapes = [tuple(t.shape) for t in [*_tensors(model, "inputs"), *_tensors(model, "outputs")]]
    wanted = [(None, *input_shape), (None, n_classes)]
    if not _fit(shapes, wanted):
        raise ConfigError(
            f"{name} gives no classifier of these images",
            expected=f"a functional or sequential model of shapes {wanted}",
            received=f"shapes {shapes}" if shapes else f"a {type(model).__name__} without a graph",
            remedy=f"give input shape and number of classes under model.arguments, {name!r}",
        )
    strange = sorted({type(op).__name__ for op in _operations(model) if not _is_stock(op)})
    if strange:
        raise TrialFailure(
            f"{name} gives a model that cannot be loaded safely elsewhere",
            expected="stock Keras layers without Lambda",
            received=", ".join(strange),
            remedy="narrow its hyperparameters under space: to those without such layers",
        )


def _tensors(model: Any, side: str) -> list[Any]:
    return list(getattr(model, side, None) or [])


def _fit(shapes: list[Any], wanted: list[Any]) -> bool:
    """Tell whether shapes are as wanted, an open dimension fitting anything."""
    return len(shapes) == len(wanted) and all(
        len(shape) == len(want)
        and all(None in pair or pair[0] == pair[1] for pair in zip(shape, want, strict=True))
        for shape, want in zip(shapes, wanted, strict=True)
    )


def _operations(model: Any) -> Iterator[Any]:
    """Every layer and operation of a graph, those of models inside it too."""
    for operation in getattr(model, "operations", None) or model.layers:
        if isinstance(operation, keras.Model):
            yield from _operations(operation)
        else:
            yield operation


def _is_stock(operation: Any) -> bool:
    module = type(operation).__module__
    return module.startswith("keras.") and not isinstance(operation, layers.Lambda)


def end_in_logits(built: Any, name: str, input_shape: tuple[int, int, int]) -> tuple[Any, bool]:
    """Return the model from RGB in 0..255 to logits, and whether its input is scaled to 0..1.

    It is scaled unless the model has a ``Rescaling`` or ``Normalization`` layer of its own.

    Raises:
        ConfigError: The end of the model is not understood.
    """
    inner = keras.Model(built.inputs, _to_logits(built), name=f"{name}_graph")
    own_scaling = (layers.Rescaling, layers.Normalization)
    is_rescaled = not any(isinstance(op, own_scaling) for op in _operations(built))
    image = keras.Input(input_shape, dtype="float32", name="image")
    x = layers.Rescaling(1 / 255, name="scale", dtype="float32")(image) if is_rescaled else image
    return keras.Model(image, inner(x), name=name), is_rescaled


def _to_logits(model: Any) -> Any:
    """Logits as a tensor of the model's graph, float32 [n, K].

    A softmax is taken off; where that is impossible because it lies in a model inside the model,
    the logarithm of its probabilities stands in: logits whose softmax is the same.
    """
    output = model.outputs[0]
    last = _last_operation(model)
    if isinstance(last, keras.Model):
        if _is_softmax(_innermost_last(last)):
            # keras.backend.epsilon() keeps the logarithm of a vanished probability finite
            output = keras.ops.log(keras.ops.maximum(output, keras.backend.epsilon()))
    elif _is_softmax(last):
        output = _linear_twin(last) if isinstance(last, layers.Dense) else last.input
    return layers.Activation("linear", dtype="float32", name="logits")(output)


def _last_operation(model: Any) -> Any:
    return model.outputs[0]._keras_history.operation  # noqa: SLF001 - Keras has no public way


def _innermost_last(operation: Any) -> Any:
    while isinstance(operation, keras.Model):
        operation = _last_operation(operation)
    return operation


def _is_softmax(operation: Any) -> bool:
    """Tell a softmax end from a linear one.

    Raises:
        ConfigError: The end is neither, so that nobody knows what its numbers mean.
    """
    if isinstance(operation, layers.Softmax):
        return True
    activation = getattr(operation, "activation", None)
    if isinstance(operation, layers.Dense | layers.Activation):
        if activation is keras.activations.softmax:
            return True
        if activation in {None, keras.activations.linear}:
            return False
    raise ConfigError(
        "the end of the foreign model is not understood",
        expected="a Dense layer with a softmax or linear activation, or a softmax layer",
        received=f"{type(operation).__name__} {getattr(activation, '__name__', '')}".strip(),
        remedy="end the model with one of these",
    )


def _linear_twin(dense: Any) -> Any:
    """What a Dense layer gives before its activation; the same weights in a new layer."""
    twin = layers.Dense(
        dense.units, use_bias=dense.use_bias, name=f"{dense.name}_linear", dtype="float32"
    )
    output = twin(dense.input)
    twin.set_weights(dense.get_weights())
    return output
