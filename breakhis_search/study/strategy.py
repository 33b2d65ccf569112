"""How a study proposes and stops trials: its sampler and its pruner."""

from __future__ import annotations

import warnings

import optuna

from breakhis_search.config import StudyConfig
from breakhis_search.study.pruning import FoldMedianPruner
from breakhis_search.study.seeding import seed_of


def build_sampler(config: StudyConfig, *, finished: int) -> optuna.samplers.BaseSampler:
    """Return the sampler; its seed differs by how far the study is, or a resume would repeat it.

    Args:
        config: The study.
        finished: Trials the study already has.
    """
    seed = seed_of(config.search.seed, "sampler", finished)
    if config.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # `group` is experimental, and the only way to model a space that branches.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=config.search.startup_trials,
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def build_pruner(config: StudyConfig) -> optuna.pruners.BasePruner:
    """Return the pruner; nothing is pruned while only a head has been warmed up."""
    if config.search.pruner == "none":
        return optuna.pruners.NopPruner()
    training = config.training
    if config.search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=min(training.max_epochs, training.head_epochs + 2),
            max_resource=training.max_epochs,
        )
    return FoldMedianPruner(
        epochs_per_fold=training.max_epochs,
        startup_trials=config.search.startup_trials,
        warmup_epochs=min(training.max_epochs - 1, training.head_epochs + 1),
    )
