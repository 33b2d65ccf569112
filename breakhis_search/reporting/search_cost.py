"""What a search cost, and what it did not have to do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.budget import SAME_AS, SECONDS
from breakhis_search.tracking import keys

_STORED_S = 1.0
"""Opening stored features takes milliseconds; asking a backbone about a hundred images, seconds."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a study, and what was saved.

    Attributes:
        by_role: Role of the runs → their seconds together.
        features_s: Of these, asking frozen backbones about images.
        from_cache: Trials on stored features that computed none.
        pruned_s: What pruned trials would have taken more, were they as long as complete ones.
        reused: Trials that took over the result of another.
    """

    by_role: dict[str, float]
    features_s: float
    from_cache: int
    pruned_s: float
    reused: int

    @property
    def hours(self) -> float:
        """Device hours of all runs."""
        return sum(self.by_role.values()) / 3600

    def in_words(self) -> list[str]:
        """Return the cost in sentences."""
        parts = ", ".join(f"{role} {seconds:,.0f} s" for role, seconds in self.by_role.items())
        lines = [f"{self.hours:.2f} device hours in all ({parts})"]
        if self.features_s:
            lines.append(
                f"{self.features_s:,.0f} s of them asked frozen backbones about images, once;"
                f" {self.from_cache} trials found the answers stored"
            )
        if self.pruned_s:
            lines.append(f"pruning saved about {self.pruned_s:,.0f} s")
        if self.reused:
            lines.append(f"{self.reused} trials took over the result of equal ones")
        return lines


def cost_of(trials: Sequence[FrozenTrial], profile: pd.DataFrame) -> Cost:
    """Return what a study cost.

    Args:
        trials: Of the search.
        profile: From :func:`breakhis_search.comparison.profile.read_profile`.
    """
    work = profile.drop(columns=[c for c in ("run", "role", "pages (beside)") if c in profile])
    seconds = work.sum(axis=1).groupby(profile["role"]).sum()
    order = [keys.ROLE_TRIAL, keys.ROLE_FINALIST, keys.ROLE_REFIT]
    features = profile["features"] if "features" in profile else pd.Series(0.0, profile.index)
    is_trial = profile["role"] == keys.ROLE_TRIAL
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return Cost(
        by_role={role: float(seconds[role]) for role in order if role in seconds},
        features_s=float(features.sum()),
        from_cache=int((is_trial & (features > 0) & (features < _STORED_S)).sum()),
        pruned_s=_saved_by_pruning(trials, complete),
        reused=sum(SAME_AS in t.user_attrs for t in complete),
    )


def _saved_by_pruning(trials: Sequence[FrozenTrial], complete: Sequence[FrozenTrial]) -> float:
    """Epochs that pruned trials did not train, at the seconds of an epoch of a complete one."""
    lengths = [len(t.intermediate_values) for t in complete if t.intermediate_values]
    rates = [
        float(t.user_attrs[SECONDS]) / len(t.intermediate_values)
        for t in complete
        if t.intermediate_values and SECONDS in t.user_attrs
    ]
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    if not lengths or not rates:
        return 0.0
    whole, rate = statistics.median(lengths), statistics.median(rates)
    return sum(max(0.0, whole - len(t.intermediate_values)) * rate for t in pruned)
