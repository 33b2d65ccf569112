"""A stand-in for ``keras_tuner.HyperParameters`` that records what a space declares.

With it a study file is checked, and a space is printed, without Keras or keras-tuner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from breakhis_search.errors import ConfigError

Kind = Literal["choice", "int", "float", "boolean", "fixed"]


@dataclass(frozen=True)
class Condition:
    """A parent name and the values of it under which a hyperparameter is active."""

    parent: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.parent} is {' or '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Declaration:
    """One hyperparameter as the code declares it.

    Attributes:
        name: Its full name.
        kind: ``choice``, ``int``, ``float``, ``boolean`` or ``fixed``.
        default: The value it has when nothing draws it.
        choices: The values of a choice or boolean, else empty.
        low: The lower bound of an int or float, included.
        high: The upper bound of an int or float, included.
        step: The distance between values, if there is one.
        log: Whether the values are drawn on a logarithmic scale.
        conditions: All must hold for it to be active.
    """

    name: str
    kind: Kind
    default: Any
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        """One line for people.

        >>> str(Declaration("optimizer/decay", "float", 1e-3, low=1e-4, high=1e-2, log=True))
        'optimizer/decay: float 0.0001..0.01 log (default 0.001)'
        """
        text = f"{self.name}: {self.kind}"
        if self.choices:
            text += f" [{', '.join(map(str, self.choices))}]"
        if self.low is not None:
            text += f" {self.low:g}..{self.high:g}"
        text += f" step {self.step:g}" if self.step else ""
        text += " log" if self.log else ""
        text += f" (default {self.default})"
        return text + "".join(f", only if {condition}" for condition in self.conditions)


class SpaceRecorder:
    """Stands in for ``keras_tuner.HyperParameters`` and records what is declared on it.

    Every value is its default; a value under a condition that the defaults do not meet is ``None``,
    as with keras-tuner.

    Attributes:
        declarations: What was declared, by full name, in order.
        values: The default of every active name.

    >>> recorder = SpaceRecorder()
    >>> recorder.Int("small_cnn/blocks", 2, 5, default=4)
    4
    >>> print(recorder.declarations["small_cnn/blocks"])
    small_cnn/blocks: int 2..5 (default 4)
    """

    def __init__(self) -> None:
        self.declarations: dict[str, Declaration] = {}
        self.values: dict[str, Any] = {}
        self._conditions: list[Condition] = []
        self._name_scopes: list[str] = []

    def Choice(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        values: Any,
        ordered: bool | None = None,  # noqa: ARG002 - part of the API
        default: Any = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """Record a choice; its default is the first value unless given."""
        choices = tuple(values)
        chosen = choices[0] if default is None else default
        return self._record(
            parent_name, parent_values, name=name, kind="choice", default=chosen, choices=choices
        )

    def Int(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = None,
        sampling: str = "linear",
        default: int | None = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """Record an integer; its default is the lower bound unless given."""
        return self._record(
            parent_name,
            parent_values,
            name=name,
            kind="int",
            default=min_value if default is None else default,
            low=min_value,
            high=max_value,
            step=step,
            log=sampling == "log",
        )

    def Float(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = None,
        sampling: str = "linear",
        default: float | None = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """Record a number; its default is the lower bound unless given."""
        return self._record(
            parent_name,
            parent_values,
            name=name,
            kind="float",
            default=min_value if default is None else default,
            low=min_value,
            high=max_value,
            step=step,
            log=sampling == "log",
        )

    def Boolean(  # noqa: N802 - keras-tuner's signature
        self,
        name: str,
        default: bool = False,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """Record a truth value."""
        return self._record(
            parent_name,
            parent_values,
            name=name,
            kind="boolean",
            default=default,
            choices=(True, False),
        )

    def Fixed(  # noqa: N802 - keras-tuner's signature
        self, name: str, value: Any, parent_name: str | None = None, parent_values: Any = None
    ) -> Any:
        """Record a constant."""
        return self._record(parent_name, parent_values, name=name, kind="fixed", default=value)

    @contextmanager
    def conditional_scope(self, parent_name: str, parent_values: Any) -> Iterator[None]:
        """Record everything declared inside as depending on the parent.

        Raises:
            ConfigError: The parent has not been declared.
        """
        parent = self._full_name(parent_name)
        if parent not in self.declarations:
            raise ConfigError(
                "a condition on a hyperparameter that does not exist",
                expected="a parent declared before",
                received=parent,
                remedy="declare the parent first",
            )
        values = parent_values if isinstance(parent_values, list | tuple) else [parent_values]
        self._conditions.append(Condition(parent, tuple(values)))
        try:
            yield
        finally:
            self._conditions.pop()

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Record everything declared inside as ``name/…``."""
        self._name_scopes.append(name)
        try:
            yield
        finally:
            self._name_scopes.pop()

    def get(self, name: str) -> Any:
        """Return the default of an active name."""
        return self.values[self._full_name(name)]

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __contains__(self, name: str) -> bool:
        return self._full_name(name) in self.values

    def _full_name(self, name: str) -> str:
        return "/".join([*self._name_scopes, name])

    def _record(
        self, parent_name: str | None, parent_values: Any, *, name: str, **facts: Any
    ) -> Any:
        scope = self.conditional_scope(parent_name, parent_values) if parent_name else nullcontext()
        with scope:
            declaration = Declaration(
                name=self._full_name(name), conditions=tuple(self._conditions), **facts
            )
        self._keep(declaration)
        return self.values.get(declaration.name)

    def _keep(self, declaration: Declaration) -> None:
        earlier = self.declarations.setdefault(declaration.name, declaration)
        if _range_of(earlier) != _range_of(declaration):
            # keras-tuner silently keeps the first range: a search would not be what the code says
            raise ConfigError(
                "a hyperparameter is declared twice with different values",
                expected=str(earlier),
                received=str(declaration),
                remedy="give the second one a name of its own",
            )
        if all(self.values.get(c.parent) in c.values for c in declaration.conditions):
            self.values.setdefault(declaration.name, declaration.default)


def _range_of(declaration: Declaration) -> tuple[Any, ...]:
    return (
        declaration.kind,
        declaration.choices,
        declaration.low,
        declaration.high,
        declaration.step,
        declaration.log,
    )
