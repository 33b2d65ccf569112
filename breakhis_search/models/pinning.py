"""Hyperparameters for a foreign model, with those kept out of the search that cannot matter.

Imports no Keras: it stands between any ``hp`` with keras-tuner's API and someone else's builder.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

OPTIMIZER_NAMES = frozenset(
    {
        "optimizer",
        "learning_rate",
        "lr",
        "momentum",
        "decay",
        "weight_decay",
        "beta_1",
        "beta_2",
        "clipnorm",
        "clipvalue",
    }
)
"""Last parts of hyperparameter names that only matter to the compilation we drop."""

UNUSABLE_CHOICES: Mapping[tuple[str, str], tuple[Any, ...]] = {
    # builds a Lambda layer, which a model file may not hold
    ("HyperResNet", "version"): ("next",),
}
"""Choices of known HyperModels, by class and name, that give a model no one could load safely."""


class PinnedHyperParameters:
    """Passes everything on to ``hp`` but keeps a foreign model's optimizer out of the search.

    Attributes:
        pinned: Full names that were answered with their default.
        withheld: ``name=value`` of the choices that were taken away.
    """

    def __init__(self, hp: Any, class_name: str) -> None:
        self._hp = hp
        self._class_name = class_name
        self._name_scopes: list[str] = []
        self.pinned: list[str] = []
        self.withheld: list[str] = []

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._hp, attribute)

    def __getitem__(self, name: str) -> Any:
        return self._hp[name]

    def __contains__(self, name: str) -> bool:
        return name in self._hp

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put everything declared inside under ``name/``."""
        self._name_scopes.append(name)
        try:
            with self._hp.name_scope(name):
                yield
        finally:
            self._name_scopes.pop()

    def Choice(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        values: Any,
        ordered: bool | None = None,
        default: Any = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """Declare a choice, without the values that give an unusable model."""
        parent = {"parent_name": parent_name, "parent_values": parent_values}
        if _is_about_training(name):
            return self._pin(name, next(iter(values)) if default is None else default, parent)
        usable = self._usable(name, values)
        return self._hp.Choice(name, usable, ordered=ordered, default=default, **parent)

    def Int(  # noqa: N802 - keras-tuner's name
        self, name: str, min_value: int, max_value: int, *others: Any, **options: Any
    ) -> Any:
        """Declare an integer."""
        return self._number("Int", name, min_value, max_value, *others, **options)

    def Float(  # noqa: N802 - keras-tuner's name
        self, name: str, min_value: float, max_value: float, *others: Any, **options: Any
    ) -> Any:
        """Declare a number."""
        return self._number("Float", name, min_value, max_value, *others, **options)

    def _number(self, kind: str, name: str, low: float, *others: Any, **options: Any) -> Any:
        declare = getattr(self._hp, kind)
        if not _is_about_training(name):
            return declare(name, low, *others, **options)
        given = inspect.signature(declare).bind(name, low, *others, **options).arguments
        default = low if given.get("default") is None else given["default"]
        parent = {key: given.get(key) for key in ("parent_name", "parent_values")}
        return self._pin(name, default, parent)

    def _pin(self, name: str, value: Any, parent: Mapping[str, Any]) -> Any:
        self.pinned.append("/".join([*self._name_scopes, name]))
        return self._hp.Fixed(name, value, **parent)

    def _usable(self, name: str, values: Any) -> list[Any]:
        unusable = UNUSABLE_CHOICES.get((self._class_name, name), ())
        full_name = "/".join([*self._name_scopes, name])
        self.withheld.extend(f"{full_name}={value}" for value in values if value in unusable)
        return [value for value in values if value not in unusable]


def _is_about_training(name: str) -> bool:
    return name.rsplit("/", maxsplit=1)[-1] in OPTIMIZER_NAMES
