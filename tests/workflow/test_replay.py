"""``replay``: a trial, trained again from what MLflow holds of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from breakhis_search.errors import OutOfMemoryFailure, ReplayError
from breakhis_search.tracking import keys
from breakhis_search.training.step_tensorflow import TensorFlowStep as Step
from breakhis_search.training.trainer import FoldTrainer
from breakhis_search.workflow.replay import Ingredient, Replayed, hold_against


@pytest.fixture(scope="module")
def trial(searched):
    """The run of the first trial of a search."""
    client = searched.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    condition = f"tags.`{keys.ROLE}` = 'trial' and tags.`{keys.TRIAL_NUMBER}` = '0'"
    [run] = client.search_runs([experiment.experiment_id], condition)
    return run


def test_a_trial_trained_again_gives_the_same_numbers(searched, trial, capsys):
    code = searched.run("replay", "--study", "binary", "--trial", "0", "--demo", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["run_id"] == trial.info.run_id
    assert code == (0 if answer["is_equal"] else 3)
    assert "image/auroc" in answer["metrics"]
    for name, (then, now) in answer["metrics"].items():
        assert then == trial.data.metrics[name]
        assert now == pytest.approx(then, abs=1e-5), name
    assert answer["differing"] == []
    assert answer["missing"] == []
    made_of = {i["name"]: i["now"] for i in answer["ingredients"]}
    assert {"data_fingerprint", "split_digest", "device", "threads"} <= set(made_of)
    assert made_of["batch_in_parts"] == "1"


def test_what_it_was_made_of_is_named_where_it_is_another(searched, trial, capsys, monkeypatch):
    sizes = sizes_of_steps(monkeypatch)
    client, run_id = searched.client, trial.info.run_id
    version = trial.data.tags[f"{keys.VERSIONS}keras"]
    client.set_tag(run_id, f"{keys.VERSIONS}keras", "3.0.0")
    threads = trial.data.tags[keys.THREADS]
    client.set_tag(run_id, keys.THREADS, "64")  # TensorFlow has computed: it cannot be had here
    client.set_tag(run_id, keys.BATCH_IN_PARTS, "2")
    client.log_metric(run_id, "image/auroc", 0.123)
    try:
        assert searched.run("replay", run_id) == 3
        told = capsys.readouterr().out
    finally:
        client.set_tag(run_id, f"{keys.VERSIONS}keras", version)
        client.set_tag(run_id, keys.THREADS, threads)
        client.delete_tag(run_id, keys.BATCH_IN_PARTS)
        client.log_metric(run_id, "image/auroc", trial.data.metrics["image/auroc"])
    assert f"keras: 3.0.0 then, {version} now" in told
    assert "Not the same: the largest difference is 0." in told
    assert "does not ask for deterministic operations" in told
    assert "0.123" in told
    assert f"threads: 64 then, {threads} now" in told
    assert sizes == {8}, "a batch of 16 was taken in two parts, as then"
    assert "batch_in_parts" not in told


def sizes_of_steps(monkeypatch) -> set[int]:
    """How many images the steps of a training take, as they are taken."""
    sizes, take = set(), Step.take

    def noted(self, inputs, *rest):
        sizes.add(len(inputs))
        return take(self, inputs, *rest)

    monkeypatch.setattr(Step, "take", noted)
    return sizes


def test_want_of_memory_takes_smaller_parts_and_is_named(searched, trial, capsys, monkeypatch):
    take = FoldTrainer.fit

    def fit(self, *arguments, **options):
        if self.parts == 1:
            raise OutOfMemoryFailure("planted")
        return take(self, *arguments, **options)

    monkeypatch.setattr(FoldTrainer, "fit", fit)
    searched.run("replay", trial.info.run_id, "--json")
    assert "batch_in_parts" in json.loads(capsys.readouterr().out)["differing"]


@pytest.mark.parametrize("role", ["finalist", "study"])
def test_only_a_trial_can_be_replayed(searched, capsys, role):
    client = searched.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    [run, *_] = client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = '{role}'")
    assert searched.run("replay", run.info.run_id) == 1
    assert "a complete trial of a search" in capsys.readouterr().err


def test_a_trial_that_was_pruned_is_said_to_be(searched, trial, capsys):
    client, run_id = searched.client, trial.info.run_id
    client.set_tag(run_id, keys.STATE, "pruned")
    client.set_tag(run_id, keys.FAILURE, "worse than the median")
    try:
        assert searched.run("replay", run_id) == 1
        by_run = capsys.readouterr().err
        assert searched.run("replay", "--study", "binary-demo", "--trial", "0") == 1
        by_number = capsys.readouterr().err
    finally:
        client.set_tag(run_id, keys.STATE, "complete")
        client.delete_tag(run_id, keys.FAILURE)
    assert "received role trial, state pruned; to do: name a complete trial" in by_run
    assert "a finalist" not in by_run
    assert "trial 0 of binary-demo@v1 was pruned (worse than the median)" in by_number
    assert "a complete trial: 1, 2" in by_number


def test_of_a_finalist_the_trial_is_named(searched, capsys):
    client = searched.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    condition = f"tags.`{keys.ROLE}` = 'finalist'"
    [run, *_] = client.search_runs([experiment.experiment_id], condition)
    assert searched.run("replay", run.info.run_id) == 1
    number = run.data.tags[keys.TRIAL_NUMBER]
    assert f"--study binary-demo@v1 --trial {number}" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_line(searched, capsys):
    assert searched.run("replay", "0" * 32) == 1
    assert "there is no run 0000" in capsys.readouterr().err


def test_equal_means_bit_by_bit():
    same, near = {"a": (0.1, 0.1)}, {"a": (0.1, 0.1 + 1e-17), "b": (0.1, 0.1 + 1e-16)}
    made = (Ingredient("x", "1", "1"), Ingredient("y", "1", "2"))
    found = Replayed("run", 0, "binary@v1", made, same, (), is_deterministic=True)
    assert found.is_equal
    assert [i.name for i in found.differing] == ["y"]
    assert not replace(found, metrics=near).is_equal
    assert not replace(found, metrics={}).is_equal, "nothing was compared"
    assert not replace(found, missing=("image/nll",)).is_equal


def test_metrics_that_only_one_has_are_named(searched, capsys, monkeypatch):
    found = Replayed("run", 0, "binary@v1", (), {"a": (0.1, 0.1)}, ("b",), is_deterministic=True)
    monkeypatch.setattr("breakhis_search.workflow.replay.replay", lambda *_, **__: found)
    assert searched.run("replay", "run") == 3
    assert "Only one of the two has: b." in capsys.readouterr().out


def test_run_without_metrics_of_predictions_is_refused():
    with pytest.raises(ReplayError, match="no metric of its predictions.*received 1 others"):
        hold_against({"seconds/fit": 3.0}, {"image/auroc": 0.8})
