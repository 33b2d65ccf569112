"""Models of any ``keras_tuner.HyperModel``, made to end in logits. Needs Keras and keras-tuner.

A foreign HyperModel draws its own hyperparameters under ``<ClassName>/``. What it does about
training is left out: its compilation is dropped and its optimizer hyperparameters are pinned.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras_tuner

from breakhis_search.errors import BreakhisSearchError, ConfigError, TrialFailure
from breakhis_search.models.foreign_graph import check_graph, end_in_logits
from breakhis_search.models.pinning import PinnedHyperParameters
from breakhis_search.own_code import load_named

logger = logging.getLogger(__name__)

CLASS_COUNT_ARGUMENTS = ("classes", "num_classes", "n_classes")
"""What constructors of HyperModels call the number of classes."""


@dataclass(frozen=True)
class ForeignModel:
    """A foreign model and what was changed about it.

    Attributes:
        model: Uncompiled, RGB in 0..255 → float32 logits [n, K].
        pinned: Full names of its hyperparameters that stay at their default and are not searched.
        withheld: Choices taken away, as ``name=value``.
        is_rescaled: Whether its input is scaled to 0..1 first: it has no such layer of its own.
    """

    model: Any
    pinned: tuple[str, ...]
    withheld: tuple[str, ...]
    is_rescaled: bool


def build_foreign(
    name: str,
    hp: Any,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    arguments: Mapping[str, Any],
) -> ForeignModel:
    """Build the model of a HyperModel named ``module:Class``.

    Args:
        name: For instance ``keras_tuner.applications:HyperResNet``.
        hp: Hyperparameters with keras-tuner's API.
        input_shape: Height and width in px, and 3; passed to the constructor if it takes it.
        n_classes: The number of logits; passed to the constructor if it takes it.
        arguments: Further constructor arguments; they win over the two above.

    Raises:
        ConfigError: The class cannot be imported or constructed, or its model is no classifier of
            images into ``n_classes``.
        TrialFailure: It cannot be built, or saved safely, with these hyperparameters.
    """
    cls = load_hypermodel(name)
    hypermodel = _construct(cls, name, input_shape, n_classes, arguments)
    pinning = PinnedHyperParameters(hp, cls.__name__)
    with pinning.name_scope(cls.__name__):
        built = _build(hypermodel, pinning, name)
    check_graph(built, name, input_shape, n_classes)
    model, is_rescaled = end_in_logits(built, cls.__name__, input_shape)
    foreign = ForeignModel(model, tuple(pinning.pinned), tuple(pinning.withheld), is_rescaled)
    logger.info("%s: pinned %s, withheld %s", name, foreign.pinned, foreign.withheld)
    return foreign


def load_hypermodel(name: str) -> Any:
    """Return the ``keras_tuner.HyperModel`` class that ``module:Class`` names.

    Raises:
        ConfigError: The module or class does not exist, or it is no HyperModel.
    """
    cls = load_named(name, role="keras_tuner.HyperModel", key="model/architecture")
    if not (inspect.isclass(cls) and issubclass(cls, keras_tuner.HyperModel)):
        raise ConfigError(
            f"{name!r} is no HyperModel",
            expected="a subclass of keras_tuner.HyperModel",
            received="nothing of that name" if cls is None else repr(cls),
            remedy="correct the class in model/architecture",
        )
    return cls


def _construct(
    cls: Any,
    name: str,
    input_shape: tuple[int, int, int],
    n_classes: int,
    arguments: Mapping[str, Any],
) -> Any:
    ours: dict[str, Any] = {"input_shape": input_shape}
    ours |= dict.fromkeys(CLASS_COUNT_ARGUMENTS, n_classes)
    accepted = inspect.signature(cls).parameters
    try:
        return cls(**{key: ours[key] for key in ours if key in accepted} | dict(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be constructed",
            expected=f"arguments for {inspect.signature(cls)}",
            received=str(error),
            remedy=f"give its constructor arguments under model.arguments, {name!r}",
        ) from error


def _build(hypermodel: Any, hp: PinnedHyperParameters, name: str) -> Any:
    try:
        return hypermodel.build(hp)
    except BreakhisSearchError:
        raise
    except Exception as error:  # someone else's code: whatever it raises is this trial's failure
        raise TrialFailure(
            f"{name} cannot build a model with these hyperparameters",
            received=f"{type(error).__name__}: {error}",
            remedy="narrow its hyperparameters under space:",
        ) from error
