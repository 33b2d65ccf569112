"""The hyperparameters of our own models: names, ranges and conditions, and a recorder of them.

Imports no Keras and no keras-tuner: ``hp`` is anything with the API of
``keras_tuner.HyperParameters``, so a study file is checked against the space in milliseconds.
A block under ``hp.conditional_scope`` runs even when its condition does not hold and gets ``None``
for every value: this is how a recorder learns all names from one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Protocol

from breakhis_search.data.draws import STRATEGY
from breakhis_search.data.sampling import CLASS_WEIGHTINGS, STRATEGIES
from breakhis_search.errors import ConfigError
from breakhis_search.models.architectures import Family, get_architecture
from breakhis_search.models.recorder import Condition, Declaration, SpaceRecorder

__all__ = [
    "ARCHITECTURE",
    "FROZEN",
    "STAINS",
    "TRAINABLE",
    "TRAINABLE_PARTS",
    "Condition",
    "Declaration",
    "HyperParameters",
    "SpaceRecorder",
    "declare_architecture",
    "declare_augmentation",
    "declare_head",
    "declare_optimizer",
    "declare_preprocessing",
    "declare_sampling",
    "declare_small_cnn",
    "declare_space",
    "declare_transfer",
    "graph_signature",
    "record_space",
    "stage_spaces",
]

ARCHITECTURE = "model/architecture"
STAINS: tuple[str, ...] = ("none", "macenko")
"""What is done to the stains of an image; see :mod:`breakhis_search.data.stain`."""
TRAINABLE = "transfer/trainable"
FROZEN = "frozen"
TRAINABLE_PARTS: tuple[str, ...] = (FROZEN, "last_block", "last_third", "whole")
"""What of a pretrained backbone learns after the head has."""


class HyperParameters(Protocol):
    """The part of ``keras_tuner.HyperParameters`` used here."""

    def Choice(  # noqa: N802 - keras-tuner's signature
        self, name: str, values: Any, ordered: bool | None = ..., default: Any = ...
    ) -> Any:
        """Declare one of ``values``."""

    def Int(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = ...,
        sampling: str = ...,
        default: int | None = ...,
    ) -> Any:
        """Declare an integer, both bounds included."""

    def Float(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = ...,
        sampling: str = ...,
        default: float | None = ...,
    ) -> Any:
        """Declare a number."""

    def conditional_scope(
        self, parent_name: str, parent_values: Any
    ) -> AbstractContextManager[Any]:
        """Open a block that is active only for these values of the parent."""

    def get(self, name: str) -> Any:
        """Return the value of an active name."""

    def __contains__(self, name: str) -> bool:
        """Tell whether a name is declared and active."""


LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "optimizer/learning_rate": (1e-8, 1.0),
        "optimizer/backbone_learning_rate": (1e-9, 1.0),
        "optimizer/weight_decay": (0.0, 1.0),
        "optimizer/label_smoothing": (0.0, 0.9),
        "augmentation/strength": (0.0, 1.0),
        "sampling/focal_gamma": (0.0, 10.0),
        "head/units": (0, 4096),
        "head/dropout_rate": (0.0, 0.95),
        "small_cnn/blocks": (1, 6),
        "small_cnn/filters": (1, 512),
        "small_cnn/kernel_size": (1, 15),
    }
)
"""What a study file may widen a number to: beyond, a model cannot be built or trained at all."""


def declare_space(hp: HyperParameters, architectures: Sequence[str]) -> None:
    """Declare everything that can be searched over these architectures, always in one order.

    Groups of a family that is not among them are left out. Foreign architectures declare names of
    their own when they are built.

    Args:
        hp: Hyperparameters with keras-tuner's API, outside any ``name_scope``.
        architectures: Names of ``models.architectures`` or ``module:Class``.

    Raises:
        ConfigError: An architecture is not known.
    """
    declare_architecture(hp, architectures)
    declare_optimizer(hp)
    declare_preprocessing(hp)
    declare_augmentation(hp)
    declare_sampling(hp)
    families: tuple[tuple[Any, tuple[Family, ...]], ...] = (
        (declare_head, ("small_cnn", "transfer")),
        (declare_small_cnn, ("small_cnn",)),
        (declare_transfer, ("transfer",)),
    )
    for declare, members in families:
        of_family = [a for a in architectures if get_architecture(a).family in members]
        if of_family:
            with _only_for(hp, of_family, architectures):
                declare(hp)


def _only_for(
    hp: HyperParameters, members: Sequence[str], architectures: Sequence[str]
) -> AbstractContextManager[Any]:
    """A condition on the architecture, left out where it always holds."""
    if set(members) == set(architectures):
        return nullcontext()
    return hp.conditional_scope(ARCHITECTURE, list(members))


def declare_architecture(hp: HyperParameters, choices: Sequence[str]) -> str:
    """Declare the architecture and return the one drawn."""
    if not choices:
        raise ConfigError(
            "no architecture to search over",
            expected="at least one name",
            received="an empty list",
            remedy=f"list architectures under {ARCHITECTURE}",
        )
    return str(hp.Choice(ARCHITECTURE, list(choices)))


def declare_head(hp: HyperParameters) -> None:
    """Declare the classification head; 0 units is a linear head on the pooled features."""
    hp.Choice("head/units", [0, 64, 128, 256], default=0)
    hp.Float("head/dropout_rate", 0.0, 0.6, step=0.05, default=0.2)


def declare_optimizer(hp: HyperParameters) -> None:
    """Declare the rates of the optimizer and the smoothing of its targets."""
    hp.Float("optimizer/learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    hp.Float("optimizer/weight_decay", 1e-6, 1e-2, sampling="log", default=1e-4)
    hp.Float("optimizer/label_smoothing", 0.0, 0.15, default=0.05)


def declare_preprocessing(hp: HyperParameters) -> None:
    """Declare what is done to an image before anything else, in training and in serving."""
    hp.Choice("preprocessing/stain", list(STAINS), default="none")


def declare_augmentation(hp: HyperParameters) -> None:
    """Declare the one strength that scales every augmentation."""
    hp.Float("augmentation/strength", 0.0, 1.0, default=0.5)


def declare_sampling(hp: HyperParameters) -> None:
    """Declare how an epoch draws its images; one choice, so that corrections never stack."""
    hp.Choice(STRATEGY, list(STRATEGIES), default="patient_balanced")
    with hp.conditional_scope(STRATEGY, ["class_weights"]):
        hp.Choice("sampling/class_weighting", list(CLASS_WEIGHTINGS))
    with hp.conditional_scope(STRATEGY, ["focal"]):
        # γ = 2 worked best in Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017
        hp.Float("sampling/focal_gamma", 0.5, 3.0, default=2.0)


def declare_small_cnn(hp: HyperParameters) -> None:
    """Declare the size of the small CNN; its filters double from block to block."""
    hp.Int("small_cnn/blocks", 2, 5, default=4)
    hp.Choice("small_cnn/filters", [16, 24, 32, 48], default=32)
    hp.Choice("small_cnn/kernel_size", [3, 5], default=3)


def declare_transfer(hp: HyperParameters) -> None:
    """Declare what of a pretrained backbone learns, and how fast."""
    hp.Choice(TRAINABLE, list(TRAINABLE_PARTS), default=FROZEN)
    with hp.conditional_scope(TRAINABLE, [p for p in TRAINABLE_PARTS if p != FROZEN]):
        hp.Float("optimizer/backbone_learning_rate", 1e-6, 3e-4, sampling="log", default=1e-5)


def stage_spaces(space: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return what is searched with frozen backbones and, where any part may learn, with that.

    Args:
        space: Of a study file, as it was read.

    >>> for stage in stage_spaces({"head/units": 0, "transfer/trainable": ["frozen", "whole"]}):
    ...     print(stage)
    {'head/units': 0, 'transfer/trainable': 'frozen'}
    {'head/units': 0, 'transfer/trainable': ('whole',)}
    """
    choices = space.get(TRAINABLE, TRAINABLE_PARTS)
    parts = choices if isinstance(choices, list | tuple) else (choices,)
    learning = tuple(str(part) for part in parts if part != FROZEN)
    frozen = {**space, TRAINABLE: FROZEN}
    return (frozen, {**space, TRAINABLE: learning}) if learning else (frozen,)


_NOT_OF_THE_GRAPH = ("optimizer/", "augmentation/", "sampling/", "preprocessing/", "transfer/")
"""Groups whose values change how a model is trained, not what it is."""


def graph_signature(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what two configurations must have in common to be the same Keras graph.

    A dropout layer differs by whether it drops at all: only then does it hold a seed.

    >>> values = {"model/architecture": "mobilenet", "optimizer/learning_rate": 1e-3}
    >>> graph_signature(values | {"head/dropout_rate": 0.3})
    (('head/dropout_rate', True), ('model/architecture', 'mobilenet'))
    """
    shared = {k: v for k, v in values.items() if not k.startswith(_NOT_OF_THE_GRAPH)}
    if "head/dropout_rate" in shared:
        shared["head/dropout_rate"] = shared["head/dropout_rate"] > 0
    return tuple(sorted(shared.items()))


def record_space(architectures: Sequence[str]) -> dict[str, Declaration]:
    """Return every hyperparameter of a space by name, in the order of declaration.

    >>> list(record_space(["small_cnn"]))[:2]
    ['model/architecture', 'optimizer/learning_rate']
    >>> print(record_space(["mobilenet"])["sampling/focal_gamma"])
    sampling/focal_gamma: float 0.5..3 (default 2.0), only if sampling/strategy is focal
    """
    recorder = SpaceRecorder()
    declare_space(recorder, architectures)
    return recorder.declarations
