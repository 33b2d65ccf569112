from __future__ import annotations

import subprocess
import sys

import pytest

from breakhis_search.data.sampling import STRATEGIES
from breakhis_search.errors import ConfigError
from breakhis_search.models.architectures import ARCHITECTURES
from breakhis_search.models.space import (
    Condition,
    SpaceRecorder,
    declare_sampling,
    declare_space,
    record_space,
)

SHARED = [
    "model/architecture",
    "optimizer/learning_rate",
    "optimizer/weight_decay",
    "optimizer/label_smoothing",
    "preprocessing/stain",
    "augmentation/strength",
    "sampling/strategy",
    "sampling/class_weighting",
    "sampling/focal_gamma",
]
HEAD = ["head/units", "head/dropout_rate"]
SMALL_CNN = ["small_cnn/blocks", "small_cnn/filters", "small_cnn/kernel_size"]
TRANSFER = ["transfer/trainable", "optimizer/backbone_learning_rate"]
FOREIGN = "keras_tuner.applications:HyperResNet"


def test_space_of_all_architectures_has_every_name_in_order():
    assert list(record_space(list(ARCHITECTURES))) == SHARED + HEAD + SMALL_CNN + TRANSFER


def test_space_without_transfer_architectures_leaves_their_group_out():
    assert list(record_space(["small_cnn"])) == SHARED + HEAD + SMALL_CNN


def test_space_of_only_foreign_architectures_has_no_head():
    assert list(record_space([FOREIGN])) == SHARED


def test_space_of_mixed_families_makes_each_group_conditional():
    space = record_space(["small_cnn", "mobilenet", "vgg16", FOREIGN])
    assert space["small_cnn/blocks"].conditions == (
        Condition("model/architecture", ("small_cnn",)),
    )
    assert space["transfer/trainable"].conditions[0].values == ("mobilenet", "vgg16")
    assert space["head/units"].conditions[0].values == ("small_cnn", "mobilenet", "vgg16")


def test_space_of_one_family_is_unconditional():
    assert record_space(["mobilenet", "vgg16"])["transfer/trainable"].conditions == ()


def test_backbone_rate_is_only_for_a_backbone_that_learns():
    (condition,) = record_space(["mobilenet"])["optimizer/backbone_learning_rate"].conditions
    assert condition == Condition("transfer/trainable", ("last_block", "last_third", "whole"))


def test_sampling_offers_what_data_sampling_knows():
    strategy = record_space(["small_cnn"])["sampling/strategy"]
    assert strategy.choices == STRATEGIES
    assert strategy.default == "patient_balanced"


def test_learning_rate_has_the_bounds_of_the_design():
    rate = record_space(["small_cnn"])["optimizer/learning_rate"]
    assert (rate.kind, rate.low, rate.high, rate.log) == ("float", 1e-4, 1e-2, True)


def test_space_without_architectures_is_refused():
    with pytest.raises(ConfigError, match="no architecture to search over"):
        declare_space(SpaceRecorder(), [])


def test_space_of_an_unknown_architecture_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'mobilenet'"):
        record_space(["mobilnet"])


def test_recorder_gives_none_where_the_condition_does_not_hold():
    recorder = SpaceRecorder()
    declare_sampling(recorder)
    assert "sampling/focal_gamma" in recorder.declarations
    assert "sampling/focal_gamma" not in recorder
    with recorder.conditional_scope("sampling/strategy", ["focal"]):
        assert recorder.Int("x", 1, 2) is None


def test_recorder_gives_the_default_where_the_condition_holds():
    recorder = SpaceRecorder()
    recorder.Choice("a", ["x", "y"])
    assert recorder.Float("b", 0.5, 1.0, parent_name="a", parent_values=["x"]) == 0.5
    assert recorder.Float("c", 0.5, 1.0, parent_name="a", parent_values="y") is None


def test_recorder_puts_names_under_the_scope():
    recorder = SpaceRecorder()
    with recorder.name_scope("HyperResNet"):
        recorder.Boolean("deep")
        assert recorder["deep"] is False
    assert recorder.Fixed("classes", 8) == 8
    assert recorder.values == {"HyperResNet/deep": False, "classes": 8}


def test_recorder_refuses_a_second_range_under_one_name():
    recorder = SpaceRecorder()
    recorder.Int("blocks", 2, 5)
    with pytest.raises(ConfigError, match=r"declared twice.*int 2\.\.5.*int 2\.\.6"):
        recorder.Int("blocks", 2, 6)


def test_recorder_refuses_a_condition_on_an_unknown_parent():
    with (
        pytest.raises(ConfigError, match=r"does not exist.*received nothing/here"),
        SpaceRecorder().conditional_scope("nothing/here", ["x"]),
    ):
        pass


def test_space_imports_no_keras():
    program = (
        "import sys; from breakhis_search.models.space import record_space; "
        "record_space(['small_cnn', 'mobilenet']); "
        "sys.exit(any(m in sys.modules for m in ('keras', 'keras_tuner', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
