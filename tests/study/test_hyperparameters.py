"""Hyperparameters drawn by Optuna behind keras-tuner's API; the contract with its private side."""

from __future__ import annotations

import keras_tuner
import optuna
import pytest

from breakhis_search.config import Range
from breakhis_search.models.space import declare_space
from breakhis_search.study.hyperparameters import TrialHyperParameters


@pytest.fixture
def trial() -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()


def distribution(trial: optuna.Trial, name: str) -> optuna.distributions.BaseDistribution:
    return trial.distributions[name]


def test_keras_tuner_still_registers_through_the_method_we_override():
    # The contract of the pin `keras-tuner~=1.4.8`.
    drawn = []

    class Probe(keras_tuner.HyperParameters):
        def _register(self, hyperparameter, overwrite=False):
            drawn.append(hyperparameter.name)
            return super()._register(hyperparameter, overwrite)

    hp = Probe()
    hp.Choice("a", [1, 2])
    hp.Int("b", 0, 3)
    hp.Float("c", 0.0, 1.0)
    hp.Boolean("d")
    hp.Fixed("e", 7)
    assert drawn == ["a", "b", "c", "d", "e"]


def test_every_kind_is_drawn_from_the_trial(trial):
    hp = TrialHyperParameters(trial)
    hp.Choice("g/choice", ["x", "y"])
    hp.Int("g/int", 1, 9, step=2)
    hp.Int("g/int_log", 1, 64, sampling="log")
    hp.Float("g/float", 0.0, 1.0, step=0.25)
    hp.Float("g/float_log", 1e-4, 1e-1, sampling="log")
    hp.Boolean("g/boolean")
    assert hp.Fixed("g/fixed", 3) == 3
    assert trial.params == {k: v for k, v in hp.values.items() if k != "g/fixed"}
    assert distribution(trial, "g/int").step == 2
    assert distribution(trial, "g/int_log").log
    assert distribution(trial, "g/float").step == 0.25
    assert distribution(trial, "g/float_log").log


def test_a_second_declaration_returns_the_same_value(trial):
    hp = TrialHyperParameters(trial)
    assert hp.Float("x", 0.0, 1.0) == hp.Float("x", 0.0, 1.0) == hp.get("x")


def test_inactive_hyperparameters_are_not_drawn(trial):
    hp = TrialHyperParameters(trial, {"parent": "a"})
    hp.Choice("parent", ["a", "b"])
    with hp.conditional_scope("parent", ["b"]):
        assert hp.Float("child", 0.0, 1.0) is None
    assert "child" not in trial.params
    assert "child" not in hp.values


def test_a_logarithmic_step_becomes_a_list_of_its_values(trial):
    hp = TrialHyperParameters(trial)
    hp.Int("filters", 8, 64, step=2, sampling="log")
    assert distribution(trial, "filters").choices == (8, 16, 32, 64)


def test_the_space_pins_narrows_and_widens(trial):
    space = {
        "pinned": 0.5,
        "listed": (1, 4),
        "ranged": Range(low=0.1, high=0.2),
        "widened": Range(low=1, high=100, step=1),
    }
    hp = TrialHyperParameters(trial, space)
    assert hp.Float("pinned", 0.0, 1.0) == 0.5
    assert hp.Choice("listed", [1, 2, 3]) in (1, 4)
    assert 0.1 <= hp.Float("ranged", 0.0, 1.0) <= 0.2
    assert isinstance(hp.Int("widened", 1, 3), int)
    assert distribution(trial, "widened").high == 100
    assert "pinned" not in trial.params


def test_an_integer_choice_given_a_range_stays_an_integer(trial):
    hp = TrialHyperParameters(trial, {"units": Range(low=16, high=64)})
    assert isinstance(hp.Choice("units", [16, 32]), int)


def test_names_in_a_scope_are_full_names(trial):
    hp = TrialHyperParameters(trial, {"Outer/rate": 0.25})
    with hp.name_scope("Outer"):
        assert hp.Float("rate", 0.0, 1.0) == 0.25


def test_the_same_trial_values_build_the_same_space(trial):
    hp = TrialHyperParameters(trial)
    declare_space(hp, ["small_cnn", "mobilenet"])
    fixed = TrialHyperParameters(optuna.trial.FixedTrial(trial.params))
    declare_space(fixed, ["small_cnn", "mobilenet"])
    assert fixed.values == hp.values


def test_many_random_trials_fit_the_declared_bounds():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for _ in range(50):
        hp = TrialHyperParameters(study.ask())
        declare_space(hp, ["small_cnn", "mobilenet", "vgg16"])
        assert 1e-4 <= hp.get("optimizer/learning_rate") <= 1e-2
        small = hp.get("model/architecture") == "small_cnn"
        assert ("small_cnn/blocks" in hp.values) == small
        assert ("transfer/trainable" in hp.values) == (not small)
        fine = hp.values.get("transfer/trainable") not in (None, "frozen")
        assert ("optimizer/backbone_learning_rate" in hp.values) == fine
