"""The model that is registered: the selected configuration, fitted to all development patients."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import optuna

from breakhis_search.study.candidate import (
    Candidate,
    build_candidate,
    trainer_of,
    training_data,
)
from breakhis_search.study.context import StudyContext
from breakhis_search.study.records import TrialRecord
from breakhis_search.study.seeding import seed_of
from breakhis_search.training.trainer import Timer


@dataclass(frozen=True)
class Refit:
    """A refitted model with the record that goes on describing it.

    Attributes:
        model: Keras model, images → logits.
        candidate: Its configuration.
        record: Its run; to be closed by whoever registers the model.
        uid: Identity of the run.
        timer: Seconds by phase so far.
    """

    model: Any
    candidate: Candidate
    record: TrialRecord
    uid: str
    timer: Timer


def refit(
    context: StudyContext, params: Mapping[str, Any], *, trial_number: int, epochs: int
) -> Refit:
    """Fit a configuration to every development image for a fixed number of epochs.

    There is nothing to validate on: ``epochs`` is the median best epoch of its folds.

    Args:
        context: The study.
        params: The values Optuna drew for the trial (pinned ones come from the study file).
        trial_number: Number of the selected trial.
        epochs: How long to train.
    """
    uid = uuid.uuid4().hex
    record = TrialRecord(context, uid=uid, number=trial_number, role="refit")
    record.begin()
    timer = Timer()
    keras.backend.clear_session()
    seed = seed_of(context.config.search.seed, "refit", trial_number)
    fixed = optuna.trial.FixedTrial(dict(params), number=trial_number)
    with timer.measure("build"):
        candidate = build_candidate(fixed, context, seed=seed)
    record.describe(candidate)
    nothing = np.empty(0, dtype=np.int64)
    trainer_of(candidate, context, timer=timer).fit(
        training_data(context, context.split.development, nothing),
        epochs=epochs,
        seed=seed,
        on_epoch=lambda report: record.add_epoch(0, report),
    )
    return Refit(candidate.model, candidate, record, uid, timer)
