"""The classification head that ends every model of ours, and the seam before it. Needs Keras.

Layer names are part of the contract: ``<architecture>_features`` (the pooled features, float32
[n, d]) is where a model is split into backbone and head, ``logits`` is its last layer.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from breakhis_search.errors import ConfigError
from breakhis_search.models.space import HyperParameters, declare_head

FEATURES_SUFFIX = "_features"
DROPOUT = "head_dropout"


def pool_features(feature_map: Any, architecture: str) -> Any:
    """Return the mean over height and width of a feature map, float32 [n, d]."""
    pool = layers.GlobalAveragePooling2D(
        name=f"{architecture}{FEATURES_SUFFIX}",
        dtype="float32",  # also under mixed precision: features are cached and averaged
    )
    return pool(feature_map)


def attach_head(features: Any, hp: HyperParameters, n_classes: int) -> Any:
    """Return logits, float32 [n, K], from pooled features; the head's size is drawn from ``hp``."""
    if "head/units" not in hp:
        declare_head(hp)
    if hp.get("head/units"):
        features = layers.Dense(hp.get("head/units"), activation="relu", name="head_dense")(
            features
        )
    features = layers.Dropout(hp.get("head/dropout_rate"), name=DROPOUT)(features)
    return layers.Dense(n_classes, name="logits", dtype="float32")(features)


def feature_width(model: Any) -> int:
    """Return the length d of the features of a model of ours."""
    return int(model.layers[_seam(model)].output.shape[-1])


def has_seam(model: Any) -> bool:
    """Tell whether a model has a head of ours; a foreign one has not."""
    return any(layer.name.endswith(FEATURES_SUFFIX) for layer in model.layers)


def layers_of_head(model: Any) -> list[Any]:
    """Return the layers behind the features of a model of ours, in order."""
    return list(model.layers[_seam(model) + 1 :])


def dropout_rate_of(model: Any) -> float:
    """Return the share of the features that the head of a model of ours drops in training."""
    return float(model.get_layer(DROPOUT).rate)


def split_at_features(model: Any) -> tuple[Any, Any]:
    """Return a model of ours as two that share its layers: images → features, features → logits.

    Args:
        model: What ``build_model`` gave for a transfer architecture or the small CNN.

    Returns:
        Extractor (RGB in 0..255 → float32 [n, d]) and head (float32 [n, d] → logits [n, K]).

    Raises:
        ConfigError: The model has no features layer (it is a foreign one).
    """
    seam = _seam(model)
    pooled = model.layers[seam].output
    head_input = keras.Input(pooled.shape[1:], dtype="float32", name="features")
    logits = head_input
    for layer in model.layers[seam + 1 :]:
        logits = layer(logits)
    return keras.Model(model.input, pooled), keras.Model(head_input, logits)


def set_dropout_rate(model: Any, rate: float) -> None:
    """Set what :func:`dropout_rate_of` returns, which is also what is saved with the model."""
    model.get_layer(DROPOUT).rate = rate


def _seam(model: Any) -> int:
    names = [layer.name for layer in model.layers]
    seam = next((i for i, name in enumerate(names) if name.endswith(FEATURES_SUFFIX)), None)
    if seam is None:
        raise ConfigError(
            f"{model.name} has no seam between features and head",
            expected=f"a layer named <architecture>{FEATURES_SUFFIX}",
            received=", ".join(names),
            remedy="train the whole model: only transfer architectures and small_cnn can be split",
        )
    return seam
