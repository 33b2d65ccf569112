"""The model that is registered: the selected configuration, fitted to all development patients."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from breakhis_search.study.candidate import (
    Candidate,
    build_candidate,
    trainer_of,
    training_data,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.objective import MEDIAN_EPOCH
from breakhis_search.study.records import TrialRecord
from breakhis_search.study.restarts import RestartableTraining
from breakhis_search.study.seeding import seed_of
from breakhis_search.study.stages import context_of
from breakhis_search.training.results import EpochReport
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import run_alone


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
    context = context_of(best, context)
    seed = seed_of(context.config.search.seed, "refit", best.number)
    fixed = optuna.trial.FixedTrial(best.params, number=best.number)
    with timer.measure("build"):
        candidate = build_candidate(fixed, context, seed=seed)
    record.describe(candidate)
    nothing = np.empty(0, dtype=np.int64)
    trainer = trainer_of(candidate, context, timer=timer)

    def seen(report: EpochReport) -> None:
        record.add_epoch(0, report, part="refit")

    training = RestartableTraining(trainer, record.checkpoint, record).run(
        "refit",
        training_data(context, context.split.development, nothing),
        epochs=int(best.user_attrs[MEDIAN_EPOCH]),
        seed=seed,
        on_epoch=seen,
        seen=seen,
        weights=True,
    )
    trainer.bring_back(run_alone(training))
    return candidate
