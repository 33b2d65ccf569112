"""How long a search may take on this device, from a measured training step."""

from __future__ import annotations

import optuna

from breakhis_search.models.space import ARCHITECTURE
from breakhis_search.study.candidate import build_candidate
from breakhis_search.study.context import StudyContext
from breakhis_search.study.stages import stages_of
from breakhis_search.tracking import keys
from breakhis_search.training.probing import images_per_second

_BATCH = 8  # on a CPU an image costs the same in any batch


def estimate_hours(context: StudyContext) -> tuple[float, str]:
    """Return the most hours the budget can take, and how that was measured.

    A step of a whole model is timed, for one architecture of the space, and every trial that
    fine-tunes, every finalist and the refit are taken to train like it to their last epoch. Heads
    on frozen backbones cost about a pass over the images and their views. Pruning, early stopping
    and stored activations make a search shorter, larger architectures longer.
    """
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    candidate = build_candidate(trial, context, seed=0)
    candidate.model.trainable = True
    rate = images_per_second(candidate.graph.probe(), context.input_shape, _BATCH, steps=2)
    hours = most_images(context) / rate / 3600
    return hours, f"at most; a step of {candidate.values[ARCHITECTURE]} was measured"


def most_images(context: StudyContext) -> int:
    """Return the images that the search, its finalists and the refit may train on at most.

    Args:
        context: The study.
    """
    config, folds = context.config, context.split.folds
    epochs = config.training.max_epochs
    per_trial = sum(len(fold.train) for fold in folds) * epochs
    probes = sum(stage.until for stage in stages_of(config) if stage.name == keys.STAGE_PROBE)
    trained = config.search.trials - probes + config.finalists.count * config.finalists.seeds
    views = config.training.features
    asked = views.levels * views.per_level * len(context.architectures) if probes and views else 0
    development = len(context.split.development)
    return trained * per_trial + development * (epochs + asked)
