"""The stages of a search: first many heads on frozen backbones, then fine-tuning from the best.

All stages are one Optuna study, so that a trial has one number everywhere and the sampler learns
from every stage what they share. A stage is a space of its own; each trial carries the name of
its stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.config import SpaceValue, StudyConfig
from breakhis_search.models.space import FROZEN, TRAINABLE, stage_spaces
from breakhis_search.study.budget import counts_towards_budget
from breakhis_search.study.context import StudyContext
from breakhis_search.study.pruning import STAGE
from breakhis_search.study.ranking import best_configurations
from breakhis_search.tracking import keys


@dataclass(frozen=True)
class Stage:
    """A part of the search.

    Attributes:
        name: ``search`` where there is only one, else ``probe`` or ``tune``.
        config: The study.
        space: What is searched in this stage.
        until: Trials of the study, of all stages so far, with which it ends.
    """

    name: str
    config: StudyConfig
    space: Mapping[str, SpaceValue]
    until: int

    @property
    def takes_hand_picked(self) -> tuple[Mapping[str, object], ...]:
        """The hand-picked configurations that are this stage's: what fine-tunes is for ``tune``."""
        return tuple(
            picked
            for picked in self.config.enqueue
            if self.name == keys.STAGE_SEARCH
            or (picked.get(TRAINABLE, FROZEN) == FROZEN) == (self.name == keys.STAGE_PROBE)
        )


def stages_of(config: StudyConfig) -> tuple[Stage, ...]:
    """Return the stages of a study, in order."""
    trials = config.search.trials
    if config.stages is None:
        return (Stage(keys.STAGE_SEARCH, config, config.space, trials),)
    frozen, *opened = stage_spaces(config.space)
    if not opened:
        return (Stage(keys.STAGE_PROBE, config, frozen, trials),)
    until = max(1, round(config.stages.probe_share * trials))
    return (
        Stage(keys.STAGE_PROBE, config, frozen, until),
        Stage(keys.STAGE_TUNE, config, opened[0], trials),
    )


def begin_stage(study: optuna.Study, stage: Stage) -> bool:
    """Queue what a stage begins with, once; ``False`` where the study is past it."""
    reached = study.user_attrs.get(STAGE)
    if reached == stage.name:
        return True
    if (reached, stage.name) == (keys.STAGE_TUNE, keys.STAGE_PROBE):
        return False
    for picked in stage.takes_hand_picked:
        study.enqueue_trial(dict(picked), skip_if_exists=True)
    if stage.name == keys.STAGE_TUNE and stage.config.stages is not None:
        counted = sum(map(counts_towards_budget, study.get_trials(deepcopy=False)))
        count = min(stage.config.stages.tune_from, max(0, stage.until - counted))
        for trial in best_configurations(study, count):
            _queue(study, trial.params)
    study.set_user_attr(STAGE, stage.name)
    return True


def _queue(study: optuna.Study, configuration: dict[str, object]) -> None:
    """Queue a configuration once; Optuna would also skip what a probe has tried already."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if configuration not in [trial.system_attrs.get("fixed_params") for trial in waiting]:
        study.enqueue_trial(configuration)


def in_stage(context: StudyContext, stage: Stage) -> StudyContext:
    """Return the context of the trials of a stage."""
    return replace(context, space=stage.space, stage=stage.name)


def context_of(trial: FrozenTrial, context: StudyContext) -> StudyContext:
    """Return the context in which a trial was drawn: its values make sense in that space."""
    name = trial.user_attrs.get(STAGE)
    stages = {stage.name: stage for stage in stages_of(context.config)}
    return in_stage(context, stages[name]) if name in stages else context
