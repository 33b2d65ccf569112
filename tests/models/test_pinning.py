from __future__ import annotations

from breakhis_search.models.pinning import PinnedHyperParameters
from breakhis_search.models.recorder import SpaceRecorder


def test_pinning_answers_optimizer_names_with_their_default():
    recorder = SpaceRecorder()
    hp = PinnedHyperParameters(recorder, "MyModel")
    with hp.name_scope("MyModel"):
        assert hp.Choice("learning_rate", [0.1, 0.01], default=0.01) == 0.01
        assert hp.Float("momentum", 0.5, 0.9) == 0.5
        assert hp.Float("weight_decay", 0.1, 0.9, None, "log", 0.3) == 0.3
    assert hp.pinned == ["MyModel/learning_rate", "MyModel/momentum", "MyModel/weight_decay"]
    assert {d.kind for d in recorder.declarations.values()} == {"fixed"}


def test_pinning_passes_other_names_on():
    recorder = SpaceRecorder()
    hp = PinnedHyperParameters(recorder, "MyModel")
    with hp.name_scope("MyModel"):
        assert hp.Int("depth", 1, 4, default=3) == 3
        assert hp.Choice("pooling", ["avg", "max"]) == "avg"
        assert hp.Boolean("residual") is False
        assert hp.get("depth") == hp["depth"] == 3
        assert "pooling" in hp
    assert recorder.declarations["MyModel/depth"].high == 4
    assert hp.pinned == []


def test_pinning_keeps_a_condition_on_a_pinned_parent():
    hp = PinnedHyperParameters(SpaceRecorder(), "MyModel")
    hp.Choice("optimizer", ["adam", "sgd"])
    assert hp.Float("momentum", 0.5, 0.9, parent_name="optimizer", parent_values=["sgd"]) is None
    with hp.conditional_scope("optimizer", ["adam"]):
        assert hp.Float("learning_rate", 0.5, 0.9) == 0.5


def test_pinning_withholds_the_choice_that_gives_a_lambda():
    recorder = SpaceRecorder()
    hp = PinnedHyperParameters(recorder, "HyperResNet")
    with hp.name_scope("HyperResNet"):
        hp.Choice("version", ["v1", "v2", "next"], default="v2")
    assert recorder.declarations["HyperResNet/version"].choices == ("v1", "v2")
    assert hp.withheld == ["HyperResNet/version=next"]


def test_pinning_leaves_the_same_choice_of_another_class_alone():
    recorder = SpaceRecorder()
    PinnedHyperParameters(recorder, "MyModel").Choice("version", ["v1", "next"])
    assert recorder.declarations["version"].choices == ("v1", "next")
