"""Stages of a search: whose turn it is, with which space, from what it starts."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from breakhis_search.config import StudyConfig
from breakhis_search.study.ranking import NLL
from breakhis_search.study.stages import begin_stage, stages_of

PARTS = "transfer/trainable"


def config(**changes) -> StudyConfig:
    values = {
        "name": "s",
        "task": "binary",
        "objective": "auroc",
        "search": {"trials": 12},
        "stages": {"probe_share": 0.5, "tune_from": 2},
    }
    return StudyConfig.model_validate(values | changes)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def probed(study: optuna.Study, value: float, rate: float) -> None:
    study.add_trial(
        create_trial(
            value=value,
            params={"optimizer/learning_rate": rate},
            distributions={"optimizer/learning_rate": FloatDistribution(1e-4, 1e-1)},
            user_attrs={NLL: 0.5},
        )
    )


def waiting(study: optuna.Study) -> list[dict[str, object]]:
    return [t.system_attrs["fixed_params"] for t in study.trials if t.state == TrialState.WAITING]


def test_without_stages_there_is_one_search():
    [stage] = stages_of(config(stages=None))
    assert (stage.name, stage.until) == ("search", 12)
    assert stage.config == config(stages=None)


def test_frozen_ones_come_first_and_the_others_never_are():
    probe, tune = stages_of(config())
    assert [(s.name, s.until) for s in (probe, tune)] == [("probe", 6), ("tune", 12)]
    assert probe.space[PARTS] == "frozen"
    assert tune.space[PARTS] == ("last_block", "last_third", "whole")


def test_a_space_that_is_narrower_stays_so():
    _, tune = stages_of(config(space={PARTS: ["frozen", "last_block"]}))
    assert tune.space[PARTS] == ("last_block",)


def test_where_nothing_may_be_fine_tuned_all_trials_are_probes():
    [probe] = stages_of(config(space={PARTS: "frozen"}))
    assert (probe.name, probe.until) == ("probe", 12)


def test_the_best_probes_are_the_first_to_be_fine_tuned(study):
    probe, tune = stages_of(config())
    assert begin_stage(study, probe)
    for value, rate in [(0.6, 1e-3), (0.9, 2e-3), (0.8, 3e-3)]:
        probed(study, value, rate)
    assert begin_stage(study, tune)
    assert waiting(study) == [{"optimizer/learning_rate": r} for r in (2e-3, 3e-3)]
    assert begin_stage(study, tune), "a second start goes on"
    assert len(waiting(study)) == 2
    assert not begin_stage(study, probe), "a larger budget does not go back"


def test_hand_picked_configurations_wait_for_their_stage(study):
    picked = [{PARTS: "last_block"}, {PARTS: "frozen"}, {"optimizer/learning_rate": 0.01}]
    probe, tune = stages_of(config(enqueue=picked))
    begin_stage(study, probe)
    assert waiting(study) == picked[1:]
    begin_stage(study, tune)
    assert waiting(study) == [*picked[1:], picked[0]]


def test_a_trial_of_either_stage_finds_its_values_in_the_space_of_one_study(study):
    for stage in stages_of(config()):
        trial = study.ask()
        choices = stage.space[PARTS]
        if isinstance(choices, tuple):
            trial.suggest_categorical(PARTS, choices)
        study.tell(trial, 0.5)
    [_, tuned] = study.trials
    assert tuned.distributions[PARTS] == CategoricalDistribution(
        ("last_block", "last_third", "whole")
    )
