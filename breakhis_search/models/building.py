"""From an architecture's name and hyperparameters to a Keras model that gives logits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from breakhis_search.errors import ConfigError, WeightsError
from breakhis_search.models.architectures import MIN_IMAGE_PX, get_architecture
from breakhis_search.models.weights import ResolvedWeights


def build_model(
    architecture: str,
    hp: Any,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    weights: ResolvedWeights,
    foreign_arguments: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Return an uncompiled ``keras.Model`` from RGB in 0..255 to float32 logits [n, K].

    The model is a plain graph of stock Keras layers: ``keras.models.load_model(safe_mode=True)``
    loads it in a process that does not have this package.

    Args:
        architecture: A name of ``ARCHITECTURES`` or ``module:Class``.
        hp: Hyperparameters with keras-tuner's API; names not declared yet are declared.
        input_shape: Height and width in px (at least ``MIN_IMAGE_PX``) and 3.
        n_classes: K, the number of logits.
        weights: What ``models.weights.resolve_weights`` gave for this architecture.
        foreign_arguments: Constructor arguments of a foreign HyperModel.

    Raises:
        ConfigError: The architecture, input shape or foreign HyperModel cannot be used.
        WeightsError: The weights are another architecture's, or do not fit.
        TrialFailure: These hyperparameters give a foreign model that cannot be used.
    """
    chosen = get_architecture(architecture)
    _check_input_shape(input_shape)
    if weights.architecture != architecture:
        raise WeightsError(
            "the weights belong to another architecture",
            expected=architecture,
            received=weights.architecture,
            remedy="resolve the weights of each architecture with resolve_weights",
        )
    if chosen.family == "small_cnn":
        from breakhis_search.models.small_cnn import SmallCNN

        return SmallCNN(input_shape=input_shape, n_classes=n_classes).build(hp)
    if chosen.family == "transfer":
        from breakhis_search.models.transfer import TransferModel

        return TransferModel(weights, input_shape=input_shape, n_classes=n_classes).build(hp)
    from breakhis_search.models.foreign import build_foreign

    return build_foreign(
        architecture,
        hp,
        input_shape=input_shape,
        n_classes=n_classes,
        arguments=foreign_arguments,
    ).model


def _check_input_shape(input_shape: tuple[int, int, int]) -> None:
    height, width, channels = input_shape
    if channels != 3 or min(height, width) < MIN_IMAGE_PX:
        raise ConfigError(
            "unusable input shape",
            expected=f"(height, width, 3) with both at least {MIN_IMAGE_PX} px",
            received=str(input_shape),
            remedy="enlarge the image size of the study",
        )
