"""What a search cost, and what it did not have to do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.budget import SAME_AS, SECONDS
from breakhis_search.study.pruning import STAGE
from breakhis_search.tracking import keys
from breakhis_search.wording import counted

_STORED_S = 1.0
"""Opening stored features takes milliseconds; asking a backbone about a hundred images, seconds."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a study, and what was saved.

    Attributes:
        by_role: Role of the runs → their seconds together; of trials and finalists also those of
            processes that left them to others.
        features_s: Of these, asking frozen backbones about images.
        from_cache: Trials on stored features that computed none.
        pruned_s: What pruned trials would have taken more, were they as long as complete ones of
            their stage.
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
            lines.append(f"{counted(self.reused, 'trial')} took over the result of an equal one")
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
    by_role = {role: float(seconds[role]) for role in order if role in seconds}
    # Optuna knows of trials that have not ended, too; their runs in MLflow have no seconds yet.
    spent = sum(float(t.user_attrs.get(SECONDS, 0.0)) for t in trials)
    if spent and keys.ROLE_TRIAL in by_role:
        by_role[keys.ROLE_TRIAL] = max(spent, by_role[keys.ROLE_TRIAL])
    features = profile["features"] if "features" in profile else pd.Series(0.0, profile.index)
    is_trial = profile["role"] == keys.ROLE_TRIAL
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return Cost(
        by_role=by_role,
        features_s=float(features.sum()),
        from_cache=int((is_trial & (features > 0) & (features < _STORED_S)).sum()),
        pruned_s=_saved_by_pruning(trials, complete),
        reused=sum(SAME_AS in t.user_attrs for t in complete),
    )


def _saved_by_pruning(trials: Sequence[FrozenTrial], complete: Sequence[FrozenTrial]) -> float:
    """What pruned trials took less than the median of the complete ones of their stage."""
    trained = [t for t in complete if SECONDS in t.user_attrs and SAME_AS not in t.user_attrs]
    saved = 0.0
    for pruned in (t for t in trials if t.state == TrialState.PRUNED):
        of_stage = [
            float(t.user_attrs[SECONDS])
            for t in trained
            if t.user_attrs.get(STAGE) == pruned.user_attrs.get(STAGE)
        ]
        if of_stage and SECONDS in pruned.user_attrs:
            whole = statistics.median(of_stage)
            saved += max(0.0, whole - float(pruned.user_attrs[SECONDS]))
    return saved
