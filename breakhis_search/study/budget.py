"""Which trials of a study used up a place of its budget. Light: ``status`` reads it, too."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

INTERRUPTED = "interrupted"
"""User attribute of a trial that was cut off: Optuna's own states know failures only."""


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Tell whether a trial used up a place of the budget: it ended, and not by interruption."""
    return trial.state.is_finished() and not trial.user_attrs.get(INTERRUPTED)


def budget_in_words(trials: Iterable[FrozenTrial], *, budget: int) -> str:
    """Return how far a study is, such as ``2 of 3 trials done, 1 queued``.

    >>> import optuna
    >>> budget_in_words([optuna.trial.create_trial(value=0.5)], budget=3)
    '1 of 3 trials done'
    """
    known = list(trials)
    done = sum(map(counts_towards_budget, known))
    queued = sum(trial.state == TrialState.WAITING for trial in known)
    return f"{done} of {max(budget, done)} trials done" + (f", {queued} queued" if queued else "")
