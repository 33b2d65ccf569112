"""keras-tuner hyperparameters whose values an Optuna trial draws.

Space is code, bounds are the study file's: builders declare names and default ranges; ``space:``
narrows, widens or pins any of them by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras_tuner
from optuna.trial import BaseTrial

from breakhis_search.config import Range, SpaceValue
from breakhis_search.errors import ConfigError


class TrialHyperParameters(keras_tuner.HyperParameters):  # type: ignore[misc]  # untyped library
    """Hyperparameters of one trial: any ``HyperModel`` builds from them unchanged.

    Args:
        trial: The Optuna trial (or a ``FixedTrial``) that proposes values.
        space: Overrides by full name, from the study file.
    """

    def __init__(self, trial: BaseTrial, space: Mapping[str, SpaceValue] | None = None) -> None:
        super().__init__()
        self._trial = trial
        self._overrides = dict(space or {})

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:  # noqa: ARG002
        """Draw a value where keras-tuner would take the default (private there: pinned, tested)."""
        hp = hyperparameter
        if hp.name not in self.values and self.is_active(hp):
            self.values[hp.name] = self._draw(hp)
        return super()._register(hp, overwrite=False)

    def _draw(self, hp: Any) -> Any:
        override = self._overrides.get(hp.name)
        if isinstance(override, Range):
            return self._draw_range(hp, override)
        if isinstance(override, tuple):
            return self._trial.suggest_categorical(hp.name, override)
        if override is not None:
            return override
        return self._draw_declared(hp)

    def _draw_range(self, hp: Any, bounds: Range) -> Any:
        if _is_integer(hp):
            step = int(bounds.step or 1)
            low, high = int(bounds.low), int(bounds.high)
            return self._trial.suggest_int(hp.name, low, high, step=step, log=bounds.log)
        return self._trial.suggest_float(
            hp.name, bounds.low, bounds.high, step=bounds.step, log=bounds.log
        )

    def _draw_declared(self, hp: Any) -> Any:
        kind = type(hp).__name__
        if kind == "Fixed":
            return hp.value
        if kind == "Boolean":
            return self._trial.suggest_categorical(hp.name, [False, True])
        if kind == "Choice":
            return self._trial.suggest_categorical(hp.name, list(hp.values))
        if kind not in ("Int", "Float"):
            raise ConfigError(
                f"{hp.name} is declared as keras_tuner {kind}, which cannot be searched",
                expected="Choice, Int, Float, Boolean or Fixed",
                remedy="pin it under space: in the study file",
            )
        log = hp.sampling in ("log", "reverse_log")  # Optuna has no reverse: same bounds, log
        if log and hp.step not in (None, 1):
            # A logarithmic step has no equivalent in Optuna: list its values.
            return self._trial.suggest_categorical(hp.name, list(_log_steps(hp)))
        if kind == "Int":
            step = 1 if log else hp.step
            return self._trial.suggest_int(hp.name, hp.min_value, hp.max_value, step=step, log=log)
        return self._trial.suggest_float(
            hp.name, hp.min_value, hp.max_value, step=None if log else hp.step, log=log
        )


def _is_integer(hp: Any) -> bool:
    return type(hp).__name__ == "Int" or isinstance(hp.default, int)


def _log_steps(hp: Any) -> Iterator[Any]:
    value = hp.min_value
    while value <= hp.max_value * (1 + 1e-9):
        yield value
        value = value * hp.step
