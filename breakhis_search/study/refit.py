"""The model that is registered: the selected configuration, fitted to all development patients."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from breakhis_search.study import lease
from breakhis_search.study.candidate import (
    Candidate,
    build_candidate,
    trainer_of,
    training_data,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.records import TrialRecord
from breakhis_search.study.seeding import seed_of
from breakhis_search.tracking import keys
from breakhis_search.training.trainer import Timer

REFIT_LEASE = "refit_lease"


def refit(
    context: StudyContext,
    best: FrozenTrial,
    *,
    record: TrialRecord,
    timer: Timer,
) -> Candidate:
    """Return the configuration of a trial, fitted to every development image.

    There is nothing to validate on: it trains for the median best epoch of its folds.

    Args:
        context: The study.
        best: The selected trial; its pinned values come from the study file.
        record: The run of the refit, begun.
        timer: Collects seconds by phase.
    """
    seed = seed_of(context.config.search.seed, "refit", best.number)
    fixed = optuna.trial.FixedTrial(best.params, number=best.number)
    with timer.measure("build"):
        candidate = build_candidate(fixed, context, seed=seed)
    record.describe(candidate)
    nothing = np.empty(0, dtype=np.int64)
    trainer_of(candidate, context, timer=timer).fit(
        training_data(context, context.split.development, nothing),
        epochs=int(best.user_attrs["median_epoch"]),
        seed=seed,
        on_epoch=lambda report: record.add_epoch(0, report),
    )
    return candidate


def claim_refit(study: optuna.Study, uid: str) -> None:
    """Leave a mark by which the next start can tell that a refit was cut off."""
    study.set_user_attr(REFIT_LEASE, {"uid": uid, "lease": lease.claim()})


def settle_dead_refit(study: optuna.Study, context: StudyContext) -> None:
    """Finish the run of a refit whose process is gone."""
    claimed = study.user_attrs.get(REFIT_LEASE)
    if not claimed or not lease.is_dead(claimed["lease"]):
        return
    journal = context.journal(claimed["uid"])
    if not journal.is_finished():
        journal.set_tags({keys.STATE: "interrupted", keys.FAILURE: "its process ended"})
        journal.finish("FAILED")
        context.delivery.deliver(journal)
    study.set_user_attr(REFIT_LEASE, None)
