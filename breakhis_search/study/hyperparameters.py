"""keras-tuner hyperparameters whose values an Optuna trial draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras_tuner
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

from breakhis_search.config import Range, SpaceValue
from breakhis_search.errors import ConfigError
from breakhis_search.models.bounds import Drawn, distribution_of
from breakhis_search.models.recorder import Declaration, Kind

_KINDS: Mapping[str, Kind] = {
    "Choice": "choice",
    "Int": "int",
    "Float": "float",
    "Boolean": "boolean",
    "Fixed": "fixed",
}
"""What keras-tuner's classes are called here."""


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
        bounds = self._overrides.get(hp.name)
        if bounds is not None and not isinstance(bounds, Range | tuple):
            return bounds
        kind = _KINDS.get(type(hp).__name__)
        if kind == "fixed" and bounds is None:
            return hp.value
        if kind is None and bounds is None:
            raise ConfigError(
                f"{hp.name} is declared as keras_tuner {type(hp).__name__}, which cannot be"
                " searched",
                expected="Choice, Int, Float, Boolean or Fixed",
                remedy="pin it under space: in the study file",
            )
        return self._suggest(hp.name, distribution_of(_declaration_of(hp, kind or "fixed"), bounds))

    def _suggest(self, name: str, drawn: Drawn) -> Any:
        if isinstance(drawn, CategoricalDistribution):
            return self._trial.suggest_categorical(name, drawn.choices)
        if isinstance(drawn, IntDistribution):
            return self._trial.suggest_int(
                name, drawn.low, drawn.high, step=drawn.step, log=drawn.log
            )
        return self._trial.suggest_float(
            name, drawn.low, drawn.high, step=drawn.step, log=drawn.log
        )


def _declaration_of(hp: Any, kind: Kind) -> Declaration:
    """What keras-tuner's own object declares."""
    return Declaration(
        hp.name,
        kind,
        hp.default,
        choices=tuple(hp.values) if kind == "choice" else (),
        low=getattr(hp, "min_value", None),
        high=getattr(hp, "max_value", None),
        step=getattr(hp, "step", None),
        # Optuna has no reverse: the same bounds, logarithmic.
        log=getattr(hp, "sampling", None) in ("log", "reverse_log"),
    )
