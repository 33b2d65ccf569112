"""HyperModels as users write them, for the tests of foreign models."""

# ruff: noqa: ARG002 - keras-tuner gives the signature of build

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
from keras import layers


class _Base(keras_tuner.HyperModel):
    def __init__(self, input_shape: Any, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_shape = input_shape
        self.num_classes = num_classes


class SequentialSoftmaxLayer(_Base):
    """A Sequential that scales its input itself and ends in a Softmax layer."""

    def build(self, hp: Any) -> Any:
        model = keras.Sequential(
            [
                keras.Input(self.input_shape),
                layers.Rescaling(1 / 255),
                layers.GlobalAveragePooling2D(),
                layers.Dense(hp.Int("units", 4, 8), activation="relu"),
                layers.Dense(self.num_classes),
                layers.Softmax(),
            ]
        )
        model.compile(keras.optimizers.SGD(hp.Float("lr", 1e-3, 1e-1)), "categorical_crossentropy")
        return model


class NestedSoftmax(_Base):
    """A model whose softmax lies in a model inside it."""

    def build(self, hp: Any) -> Any:
        inner = keras.Sequential(
            [layers.GlobalAveragePooling2D(), layers.Dense(self.num_classes, activation="softmax")]
        )
        image = keras.Input(self.input_shape)
        return keras.Model(image, inner(image))


class LinearEnd(_Base):
    """A model that gives logits already."""

    def build(self, hp: Any) -> Any:
        image = keras.Input(self.input_shape)
        x = layers.GlobalAveragePooling2D()(image)
        return keras.Model(image, layers.Dense(self.num_classes)(x))


class SigmoidEnd(_Base):
    """A multi-label model: its numbers are no distribution."""

    def build(self, hp: Any) -> Any:
        image = keras.Input(self.input_shape)
        x = layers.GlobalAveragePooling2D()(image)
        return keras.Model(image, layers.Dense(self.num_classes, activation="sigmoid")(x))


class OneLogit(_Base):
    """A binary model with one output."""

    def build(self, hp: Any) -> Any:
        image = keras.Input(self.input_shape)
        x = layers.GlobalAveragePooling2D()(image)
        return keras.Model(image, layers.Dense(1, activation="sigmoid")(x))


class WithLambda(_Base):
    """A model with a layer that cannot be loaded safely."""

    def build(self, hp: Any) -> Any:
        image = keras.Input(self.input_shape)
        x = layers.GlobalAveragePooling2D()(layers.Lambda(lambda x: x * 2)(image))
        return keras.Model(image, layers.Dense(self.num_classes)(x))


class Subclassed(_Base):
    """A model without a graph."""

    def build(self, hp: Any) -> Any:
        class Model(keras.Model):
            pass

        return Model()


class Breaks(_Base):
    """A builder with a fault."""

    def build(self, hp: Any) -> Any:
        message = "negative dimension size"
        raise ValueError(message)


class NeedsMore(keras_tuner.HyperModel):
    """A HyperModel with an argument nobody else knows."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.classes = classes

    def build(self, hp: Any) -> Any:
        image = keras.Input((None, None, 3))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(self.width, 3)(image))
        return keras.Model(image, layers.Dense(self.classes, activation="softmax")(x))


class NotOne:
    """No HyperModel."""
