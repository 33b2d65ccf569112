"""How long a search may take on this device, from a measured training step."""

from __future__ import annotations

import time

import optuna

from breakhis_search.models.space import ARCHITECTURE
from breakhis_search.study.candidate import build_candidate, trainer_of, training_data
from breakhis_search.study.context import StudyContext
from breakhis_search.training.trainer import Timer

_ROWS = 4  # batches per measured epoch


def estimate_hours(context: StudyContext) -> tuple[float, str]:
    """Return the most hours the budget can take, and how that was measured.

    One epoch of a few batches is trained twice (the first compiles) with one architecture of the
    space. Pruning and early stopping make a search shorter, larger architectures longer.
    """
    config, fold = context.config, context.split.folds[0]
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    candidate = build_candidate(trial, context, seed=0)
    size = candidate.batch_size
    rows = fold.train[:: max(1, len(fold.train) // (_ROWS * size))][: _ROWS * size]
    data = training_data(context, rows, fold.validation[:0])
    trainer = trainer_of(candidate, context, timer=Timer())
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        trainer.fit(data, epochs=1, seed=0)
        seconds.append(time.perf_counter() - start)
    images = sum(len(f.train) for f in context.split.folds) * config.training.max_epochs
    hours = config.search.trials * images * min(seconds) / len(rows) / 3600
    basis = f"at most, measured on {len(rows)} images with {candidate.values[ARCHITECTURE]}"
    return hours, basis
