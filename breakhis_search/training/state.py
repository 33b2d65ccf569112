"""Where the training of a fold stands: enough to go on as if it had never stopped.

Nothing here knows of files. Weights are told apart by their place in the model they belong to, so
that a state can be put into another build of the same graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from breakhis_search.training.results import EpochReport
from breakhis_search.training.snapshots import Snapshot

Arrays = Mapping[str, npt.NDArray[Any]]


class StateMismatchError(Exception):
    """A state belongs to another graph, or to another version of this program."""


@dataclass(frozen=True)
class Part:
    """A part of a state.

    Attributes:
        arrays: Numbers by name.
        facts: Anything else, as JSON would keep it.
    """

    arrays: Arrays = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoldState:
    """A training after some epochs.

    Attributes:
        span: Name of the phase that it is in.
        history: One report per epoch so far.
        phase: Weights, momenta, seeds.
        best: The best weights so far and what is known of them.
    """

    span: str
    history: tuple[EpochReport, ...]
    phase: Part
    best: Part

    @property
    def epochs(self) -> int:
        """How many epochs it has been trained."""
        return len(self.history)


def values_of(variables: Iterable[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return what variables hold now, by their place."""
    return {str(i): np.array(variable) for i, variable in enumerate(variables)}


def put_values(variables: Iterable[Any], arrays: Arrays) -> None:
    """Give variables the values that :func:`values_of` returned.

    Raises:
        StateMismatchError: They are not the values of such variables; none is changed.
    """
    targets = list(variables)
    values = [arrays.get(str(i)) for i in range(len(targets))]
    shapes = [None if value is None else value.shape for value in values]
    if len(arrays) != len(targets) or shapes != [tuple(v.shape) for v in targets]:
        message = f"{len(arrays)} values do not fit {len(targets)} variables"
        raise StateMismatchError(message)
    for variable, value in zip(targets, values, strict=True):
        variable.assign(value)


def places_of(core: Any, snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
    """Return the values of a snapshot by the place of each variable in a model."""
    place = {id(variable): i for i, variable in enumerate(core.variables)}
    pairs = zip(snapshot.variables, snapshot.values, strict=True)
    return {str(place[id(variable)]): np.array(value) for variable, value in pairs}


def snapshot_from(core: Any, arrays: Arrays) -> Snapshot:
    """Return the snapshot that :func:`places_of` took apart, of a model of the same graph.

    Raises:
        StateMismatchError: It is of another graph.
    """
    variables = core.variables
    chosen, values = [], []
    for place, value in arrays.items():
        index = int(place)
        if index >= len(variables) or tuple(variables[index].shape) != value.shape:
            message = f"there is no variable {index} of shape {value.shape}"
            raise StateMismatchError(message)
        chosen.append(variables[index])
        values.append(value)
    return Snapshot(tuple(chosen), tuple(values))
