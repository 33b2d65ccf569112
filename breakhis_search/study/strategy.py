"""How a study proposes and stops trials: its sampler and its pruner."""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.trial import FrozenTrial, TrialState

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
        return OneReadingTPESampler(
            n_startup_trials=config.search.startup_trials,
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


class OneReadingTPESampler(optuna.samplers.TPESampler):
    """TPE that proposes by what was read of the study when its trial was begun.

    Optuna's reads all trials at work once more before it proposes, which with 32 workers is a third
    of what they ask of the database. A trial that another worker has begun since, a tenth of a
    second ago, it would see; this one knows it at the next turn. And for every proposal Optuna's
    takes all trials there ever were apart by hyperparameters, which is a fifth of a proposal after
    2,000.

    Args:
        options: As for Optuna's, with ``group=True``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        groups = self._group_decomposed_search_space
        if groups is not None:
            groups._search_space = _Groups()  # noqa: SLF001

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values of hyperparameters together, as Optuna does."""
        return super().sample_relative(cast("optuna.Study", _AsRead(study)), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose one value, as Optuna does."""
        return super().sample_independent(
            cast("optuna.Study", _AsRead(study)), trial, param_name, param_distribution
        )


class _Groups(_SearchSpaceGroup):
    """Hyperparameters that occur together; those of one more trial that has the same change none.

    Each group lies within or without those of a trial that was looked at, so that looking at them
    once more leaves all groups, their order too, as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: set[frozenset[str]] = set()

    def add_distributions(self, distributions: dict[str, BaseDistribution]) -> None:
        """Divide the groups by these hyperparameters."""
        names = frozenset(distributions)
        if names not in self._known:
            self._known.add(names)
            super().add_distributions(distributions)


class _AsRead:
    """A study as it was read when the trial at hand was begun; in all else the study itself."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = True,
    ) -> list[FrozenTrial]:
        del use_cache
        return self._study._get_trials(deepcopy, states, use_cache=True)  # noqa: SLF001


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
