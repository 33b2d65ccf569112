"""What the values of a hyperparameter are drawn from.

Space is code, bounds are the study file's: builders declare names and default ranges; ``space:``
narrows, widens or pins any of them by name. Trials draw from what is put together here, and reports
tell it. Imports no Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from breakhis_search.config import Range, SpaceValue
from breakhis_search.models.recorder import Declaration

Drawn: TypeAlias = CategoricalDistribution | FloatDistribution | IntDistribution


def distribution_of(declaration: Declaration, bounds: SpaceValue | None = None) -> Drawn:
    """Return what the values of a declared hyperparameter are drawn from.

    Args:
        declaration: As the code declares it.
        bounds: Of the study file, if it has any; a single value pins.

    >>> rate = Declaration("r", "float", 1e-3, low=1e-4, high=1e-2, log=True)
    >>> distribution_of(rate)
    FloatDistribution(high=0.01, log=True, low=0.0001, step=None)
    >>> distribution_of(rate, 0.001)
    CategoricalDistribution(choices=(0.001,))
    """
    if bounds is None:
        return _declared(declaration)
    # A choice among whole numbers may be bounded by a range, too: of whole numbers.
    return bounded(bounds, whole=declaration.kind == "int" or isinstance(declaration.default, int))


def bounded(bounds: SpaceValue, *, whole: bool) -> Drawn:
    """Return what values are drawn from that a study file bounds.

    Args:
        bounds: A range, choices or one value.
        whole: Whether a range is one of whole numbers.
    """
    if isinstance(bounds, Range):
        if whole:
            low, high, step = int(bounds.low), int(bounds.high), int(bounds.step or 1)
            return IntDistribution(low, high, step=step, log=bounds.log)
        return FloatDistribution(bounds.low, bounds.high, step=bounds.step, log=bounds.log)
    return CategoricalDistribution(bounds if isinstance(bounds, tuple) else (bounds,))


def _declared(declaration: Declaration) -> Drawn:
    low, high, step, log = declaration.low, declaration.high, declaration.step, declaration.log
    if declaration.kind == "boolean":
        return CategoricalDistribution((False, True))
    if low is None or high is None:
        return CategoricalDistribution(declaration.choices or (declaration.default,))
    if log and step not in (None, 1):
        # A logarithmic step has no equivalent in Optuna: list its values.
        return CategoricalDistribution(tuple(_log_steps(low, high, step)))
    if declaration.kind == "int":
        return IntDistribution(int(low), int(high), step=1 if log else int(step or 1), log=log)
    return FloatDistribution(low, high, step=None if log else step, log=log)


def _log_steps(low: Any, high: Any, factor: Any) -> Iterator[Any]:
    value = low
    while value <= high * (1 + 1e-9):
        yield value
        value = value * factor
