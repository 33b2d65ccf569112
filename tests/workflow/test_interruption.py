"""Studies that end early, fail or are cut off, and go on."""

from __future__ import annotations

import json
import platform

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.errors import TrialFailure
from breakhis_search.tracking import keys


def study_of(home, name: str = "binary-demo@v1") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=home.settings.studies_uri)


def runs_of(home, role: str = "trial") -> list:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    return client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = '{role}'")


@pytest.fixture(autouse=True)
def _without_fresh_process(monkeypatch):
    """The check in a fresh process takes 10 s and is tested in test_run.py."""
    monkeypatch.setattr(
        "breakhis_search.workflow.registration.verify_in_fresh_process", lambda *a, **k: None
    )
    monkeypatch.setattr(
        "breakhis_search.workflow.registration.attach_paper_trail", lambda *a, **k: None
    )


class Bomb:
    """Raises once, at the given epoch of the whole run."""

    def __init__(self, error: BaseException, at: int) -> None:
        self.error, self.left = error, at

    def __call__(self, *_args, **_kwargs) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


@pytest.fixture
def plant(monkeypatch):
    def plant(error: BaseException, at: int) -> None:
        bomb = Bomb(error, at)
        monkeypatch.setattr(
            "breakhis_search.cli.progress.TerminalObserver.epoch_finished",
            lambda *args, **kwargs: bomb(),
        )

    return plant


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(home, plant, capsys):
    plant(KeyboardInterrupt(), at=6)  # 2 folds × 2 epochs a trial: in the second trial
    assert home.search("binary", 2) == 130
    told = capsys.readouterr().out
    assert "Stopped: 1 of 2 trials done" in told
    assert "the same command goes on" in told
    states = [t.state for t in study_of(home).trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert {r.info.status for r in runs_of(home)} == {"FINISHED", "FAILED"}
    interrupted = study_of(home).trials[1].params
    assert home.run("status", "--json") == 0
    [status] = json.loads(capsys.readouterr().out)["studies"]
    assert [status[k] for k in ("complete", "failed", "interrupted", "queued")] == [1, 0, 1, 1]

    assert home.search("binary", 2) == 0
    told = capsys.readouterr().out
    assert "continuing binary-demo@v1: 1 of 2 trials done, 1 queued" in told
    assert "\n2/2 trial 2 " in told
    trials = study_of(home).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials[2].params == interrupted
    assert not [r for r in runs_of(home) if r.info.status == "RUNNING"]
    tags = [r.data.tags[keys.STATE] for r in runs_of(home)]
    assert sorted(tags) == ["complete", "complete", "interrupted"]


def test_ctrl_c_during_the_refit_leaves_nothing_running_or_half_registered(home, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.workflow.registration.package_classifier", stop)
        assert home.search("binary", 1) == 130
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    assert not client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    assert client.search_registered_models() == []
    assert home.search("binary", 1) == 0
    assert len(client.search_model_versions("name = 'breakhis-binary-demo'")) == 1


def test_a_trial_that_fails_is_recorded_and_the_study_goes_on(home, plant):
    plant(TrialFailure("the planted reason"), at=2)
    assert home.search("binary", 2) == 0
    trials = study_of(home).trials
    assert [t.state for t in trials] == [TrialState.FAIL, TrialState.COMPLETE]
    failed = next(r for r in runs_of(home) if r.info.status == "FAILED")
    assert failed.data.tags[keys.FAILURE] == "the planted reason"


def test_a_trial_of_a_dead_process_is_settled_and_tried_again(home):
    assert home.search("binary", 1) == 0
    study = study_of(home)
    dead = study.ask()
    lease = {"host": platform.node(), "boot": "an earlier boot", "pid": 1}
    study._storage.set_trial_user_attr(dead._trial_id, "lease", lease)
    assert study.trials[1].state == TrialState.RUNNING
    assert home.search("binary", 2) == 0
    states = [t.state for t in study_of(home).trials]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.COMPLETE) == 2


def test_another_space_starts_another_version(home, capsys):
    assert home.search("binary", 1) == 0
    assert home.search("binary", 1, "--set", "space.head/units=64") == 0
    out = capsys.readouterr().out
    assert "new study binary-demo@v2" in out
    assert len(study_of(home, "binary-demo@v2").trials) == 1


def test_more_trials_continue_the_same_version(home):
    assert home.search("binary", 1) == 0
    assert home.search("binary", 2) == 0
    trials = study_of(home).trials
    assert len(trials) == 2
    assert trials[0].params != trials[1].params, "a resumed sampler must not repeat itself"


@pytest.mark.parametrize(
    ("leak", "words"), [("kind=image", "BY IMAGE"), ("group_by=slide", "BY SLIDE")]
)
def test_a_leaky_protocol_is_marked_and_never_registered(home, capsys, leak, words):
    leaky = ["--set", f"protocol.{leak}", "--i-know-this-leaks"]
    assert home.search("binary", 1, *leaky) == 0
    out = capsys.readouterr().out
    assert "LEAKY" in out
    assert "Nothing new was registered: the protocol leaks patients" in out
    assert all(r.data.tags[keys.LEAKY] == "true" for r in runs_of(home))
    [parent] = runs_of(home, "study")
    assert f"folds {words}: patients leak" in parent.data.tags[keys.MLFLOW_NOTE]
    assert home.client.search_registered_models() == []


def test_a_model_below_its_floors_is_only_a_challenger(home, capsys):
    floors = ["--set", "registration.floors={image/auroc: 0.999}"]
    assert home.search("binary", 1, *floors) == 0
    assert (
        "as challenger (out-of-fold, below the configured floors: image/auroc"
        in capsys.readouterr().out
    )
    assert home.run("promote", "--study", "binary", "--demo") == 1
    assert "below the configured floors: image/auroc" in capsys.readouterr().err
    assert home.run("promote", "--study", "binary", "--demo", "--force") == 0
    version = home.client.get_model_version_by_alias("breakhis-binary-demo", "champion")
    assert str(version.version) == "1"


def test_hand_picked_first_trials_are_run_first(home):
    first = "enqueue=[{optimizer/learning_rate: 0.0012, augmentation/strength: 0.25}]"
    assert home.search("binary", 1, "--set", first) == 0
    params = study_of(home).trials[0].params
    assert params["optimizer/learning_rate"] == 0.0012
    assert params["augmentation/strength"] == 0.25
