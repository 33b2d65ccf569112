"""Values that variables had at some time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Snapshot:
    """Values that variables of a model had at some time.

    Attributes:
        variables: Of the model.
        values: What each held, where the variables are.
    """

    variables: Sequence[Any]
    values: Sequence[Any]

    @classmethod
    def take(cls, variables: Iterable[Any]) -> Snapshot:
        """Return what variables hold now."""
        kept = tuple(variables)
        return cls(kept, tuple(keras.ops.copy(variable.value) for variable in kept))

    def put(self) -> None:
        """Give the variables their values back, as often as wanted.

        Copies: under JAX a variable would hold the very memory of the snapshot, which the next
        prediction by Keras gives away.
        """
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(keras.ops.copy(value))
