"""What was searched: bounds of the study file, of the code, and of what Optuna drew."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from breakhis_search.config import Range
from breakhis_search.models.space import declare_space, record_space
from breakhis_search.reporting.search_space import (
    bounds_in_words,
    has_backbones,
    searched_space,
)
from breakhis_search.study.hyperparameters import TrialHyperParameters

SMALL = {"model/architecture": ["small_cnn"]}


def test_bounds_of_the_code_are_there_though_the_study_file_does_not_name_them():
    found = searched_space({"space": SMALL})
    assert set(found) == set(record_space(["small_cnn"])) - {"transfer/trainable"}
    assert found["augmentation/strength"] == "0 to 1"
    assert found["sampling/strategy"].startswith("none, ")
    assert found["head/dropout_rate"] == "0 to 0.6 in steps of 0.05"
    assert found["optimizer/label_smoothing"] == "0 to 0.15"
    assert found["optimizer/weight_decay"] == "1e-06 to 0.01, log scale"
    assert found["small_cnn/blocks"] == "2 to 5, integers"


def test_bounds_of_the_study_file_win_over_those_of_the_code_and_come_first():
    space = {
        "small_cnn/blocks": {"low": 2, "high": 3, "log": False, "step": None},
        "head/units": {"low": 16, "high": 64},
        "sampling/strategy": "none",
        **SMALL,
    }
    found = searched_space({"space": space})
    assert list(found)[:4] == list(space)
    assert found["small_cnn/blocks"] == "2 to 3, integers"
    assert found["head/units"] == "16 to 64, integers", "a choice of integers, bounded by a range"
    assert found["sampling/strategy"] == "none (pinned)"


def test_what_no_trial_can_have_is_left_out():
    space = {**SMALL, "sampling/strategy": ["none"], "transfer/trainable": "whole"}
    found = searched_space({"space": space})
    assert "sampling/focal_gamma" not in found, "there is no focal loss"
    assert "transfer/trainable" not in found, "no architecture here has a backbone"
    both = searched_space({"space": {"model/architecture": ["small_cnn", "vgg16"]}})
    assert both["small_cnn/kernel_size"] == "3, 5, only if model/architecture is small_cnn"
    assert both["transfer/trainable"].endswith("whole, only with a backbone")


def test_stages_are_told_apart_where_they_differ():
    space = {"model/architecture": ["vgg16"], "transfer/trainable": ["frozen", "last_block"]}
    found = searched_space({"space": space, "stages": {"probe_share": 0.5}})
    assert found["transfer/trainable"] == "probe: frozen (pinned); tune: last_block (pinned)"
    assert found["optimizer/backbone_learning_rate"].startswith("tune: 1e-06 to 0.0003, log scale")
    assert found["head/dropout_rate"] == "0 to 0.6 in steps of 0.05"


def test_what_optuna_drew_from_is_taken_where_it_is_known():
    drawn = {
        "optimizer/weight_decay": FloatDistribution(1e-5, 1e-3, log=True),  # of an older version
        "TwoBlocks/filters": CategoricalDistribution([8, 16]),
    }
    trial = optuna.trial.create_trial(
        params={"optimizer/weight_decay": 1e-4, "TwoBlocks/filters": 8},
        distributions=drawn,
        value=0.5,
        user_attrs={"stage": "search"},
    )
    space = {"model/architecture": ["mine:TwoBlocks"], "TwoBlocks/depth": 3}
    found = searched_space({"space": space}, [trial])
    assert found["optimizer/weight_decay"] == "1e-05 to 0.001, log scale"
    assert found["TwoBlocks/filters"] == "8, 16"
    assert found["TwoBlocks/depth"] == "3 (pinned)"


def test_without_a_study_file_nothing_is_claimed():
    assert searched_space({}) == {}


def test_own_and_small_architectures_have_no_pretrained_weights():
    assert not has_backbones({"space": {"model/architecture": ["small_cnn", "mine:Net"]}})
    assert has_backbones({"space": {"model/architecture": ["small_cnn", "vgg16"]}})


@pytest.mark.parametrize("name", ["small_cnn", "mobilenet"])
def test_bounds_are_those_that_trials_are_drawn_from(name):
    space = {"model/architecture": (name,), "head/units": Range(low=0, high=64)}
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    declare_space(TrialHyperParameters(trial, space), (name,))
    raw = {"model/architecture": [name], "head/units": {"low": 0, "high": 64}}
    told = searched_space({"space": raw})
    for drawn, kind in trial.distributions.items():
        assert told[drawn].partition(", only")[0] == bounds_in_words(kind), drawn


def test_an_architecture_that_another_release_had_is_no_reason_to_refuse_a_report():
    space = {"model/architecture": ["small_cnn", "of_the_past"]}
    assert searched_space({"space": space})["model/architecture"] == "small_cnn, of_the_past"
    assert not has_backbones({"space": {"model/architecture": ["of_the_past"]}})
