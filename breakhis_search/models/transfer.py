"""A pretrained backbone with a head of ours. Needs Keras and keras-tuner.

The backbone always runs in inference mode, also while it is fine-tuned. ``backbone(x,
training=False)`` does not achieve this: in Keras 3.15 the ``training=True`` of the outer model
overrides it (batch statistics move). So its batch normalisations are made untrainable, which puts
them in inference mode for good, and the rate of its dropout layers is 0.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
from keras import layers

from breakhis_search.errors import ConfigError, WeightsError
from breakhis_search.models.architectures import Backbone, Normalisation, get_architecture
from breakhis_search.models.heads import attach_head, pool_features
from breakhis_search.models.space import HyperParameters, declare_transfer
from breakhis_search.models.weights import ResolvedWeights

IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's RGB in 0..1: mode torch of ``imagenet_utils`` in Keras."""

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
"""Mean of ImageNet's BGR in 0..255: mode caffe of ``imagenet_utils`` in Keras."""


class TransferModel(keras_tuner.HyperModel):  # type: ignore[misc]  # keras-tuner has no types
    """Normalisation, backbone, global average pooling and head.

    Args:
        weights: The weights of the backbone; they also say which architecture it is.
        input_shape: Height and width in px, and 3.
        n_classes: The number of logits.

    Raises:
        ConfigError: The weights name an architecture that is not a transfer one.
    """

    def __init__(
        self, weights: ResolvedWeights, *, input_shape: tuple[int, int, int], n_classes: int
    ) -> None:
        super().__init__(name=weights.architecture)
        self.weights = weights
        self.backbone = _backbone_of(weights.architecture)
        self.input_shape = input_shape
        self.n_classes = n_classes

    def build(self, hp: HyperParameters) -> Any:
        """Return the uncompiled ``keras.Model``: RGB in 0..255 → float32 logits [n, K].

        Everything but batch normalisation is trainable until ``set_trainable`` is called.

        Raises:
            WeightsError: The weights file does not fit the backbone.
        """
        if "transfer/trainable" not in hp:
            declare_transfer(hp)
        image = keras.Input(self.input_shape, dtype="float32", name="image")
        backbone = build_backbone(self.backbone, self.weights, self.input_shape)
        feature_map = backbone(normalise(image, self.backbone.normalisation))
        features = pool_features(feature_map, self.weights.architecture)
        logits = attach_head(features, hp, self.n_classes)
        return keras.Model(image, logits, name=self.weights.architecture)


def _backbone_of(architecture: str) -> Backbone:
    backbone = get_architecture(architecture).backbone
    if backbone is None:
        raise ConfigError(
            "not a transfer architecture",
            expected="one with a pretrained backbone",
            received=architecture,
            remedy="build it with build_model",
        )
    return backbone


def normalise(image: Any, normalisation: Normalisation) -> Any:
    """Return RGB in 0..255 (float32 [n, h, w, 3]) as a backbone wants it, by stock layers only.

    Equal to ``keras.applications.imagenet_utils.preprocess_input`` in the mode of that name.
    """
    if normalisation == "included":
        return image
    if normalisation == "tf":
        return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale", dtype="float32")(image)
    if normalisation == "torch":
        scale = [1 / (255 * std) for std in IMAGENET_STD_RGB]
        pairs = zip(IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, strict=True)
        offset = [-mean / std for mean, std in pairs]
        return layers.Rescaling(scale, offset=offset, name="scale", dtype="float32")(image)
    # A flip is exact; a 1×1 convolution that swaps channels is rounded to TF32 on recent GPUs.
    bgr = keras.ops.flip(image, axis=-1)
    offset = [-mean for mean in CAFFE_MEAN_BGR]
    return layers.Rescaling(1.0, offset=offset, name="scale", dtype="float32")(bgr)


def build_backbone(
    backbone: Backbone, weights: ResolvedWeights, input_shape: tuple[int, int, int]
) -> Any:
    """Return a network of ``keras.applications`` without its top, weights loaded, inference mode.

    Raises:
        WeightsError: The weights file does not fit the backbone.
    """
    build = getattr(keras.applications, backbone.builder)
    model = build(include_top=False, weights=None, input_shape=input_shape)
    if weights.path is not None:
        _load_weights(model, weights)
    if backbone.builder == "EfficientNetB0" and weights.origin != "none":
        _divide_by_root_deviation(model)
    fix_inference_mode(model)
    return model


def fix_inference_mode(backbone: Any) -> None:
    """Make a backbone give the same features in training as in inference."""
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, layers.Dropout):
            layer.rate = 0.0


def _load_weights(model: Any, weights: ResolvedWeights) -> None:
    try:
        model.load_weights(weights.path)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{weights.path} does not fit {weights.architecture}",
            expected="the weights of this architecture without its top",
            received=" ".join(str(error).split())[:300],
            remedy="put the right file into --weights-dir, or leave the option out",
        ) from error


def _divide_by_root_deviation(model: Any) -> None:
    """Put into EfficientNetB0 what ``keras.applications`` adds only for ``weights="imagenet"``.

    Its pretrained weights expect (x - mean) / variance ** 0.5 / deviation ** 0.5 where the file's
    normalisation gives (x - mean) / variance ** 0.5; see keras/src/applications/efficientnet.py.
    The same result comes from a variance multiplied by the deviation.
    """
    normalisation = next(x for x in model.layers if isinstance(x, layers.Normalization))
    mean, variance, *count = normalisation.get_weights()
    deviation = keras.ops.convert_to_numpy(IMAGENET_STD_RGB)
    normalisation.set_weights([mean, variance * deviation, *count])
    normalisation.finalize_state()
