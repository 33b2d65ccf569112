"""Studies that end early, fail or are cut off, and go on."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, suppress

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.errors import TrialFailure
from breakhis_search.study.leases import Leases
from breakhis_search.study.taken import TakenTrial
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.training.step_tensorflow import TensorFlowStep as Step
from breakhis_search.training.trainer import FoldTrainer
from tests.patience import wait_until


def study_of(home, name: str = "binary-demo@v1") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=home.settings.studies_uri)


def runs_of(home, role: str = "trial") -> list:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    return client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = '{role}'")


pytestmark = pytest.mark.usefixtures("registers_quickly")


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
    assert states == [TrialState.COMPLETE, TrialState.RUNNING]
    assert {r.info.status for r in runs_of(home)} == {"FINISHED", "FAILED"}
    begun = study_of(home).trials[1]
    assert home.run("status", "--json") == 0
    [status] = json.loads(capsys.readouterr().out)["studies"]
    assert [status[k] for k in ("complete", "failed", "interrupted", "running")] == [1, 0, 1, 0]

    assert home.search("binary", 2) == 0
    told = capsys.readouterr().out
    assert "continuing binary-demo@v1: 1 of 2 trials done, 1 begun" in told
    assert "trial 1 had been cut off; it goes on where it was" in told
    assert "\n2/2 trial 1 " in told
    trials = study_of(home).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials[1].params == begun.params
    assert_whole(home, trials)


def assert_whole(home, trials) -> None:
    """One finished run a trial, of the same identity, with every epoch once."""
    runs = {r.data.tags[keys.TRIAL_UID]: r for r in runs_of(home)}
    assert set(runs) == {t.user_attrs["trial_uid"] for t in trials}
    assert len(runs_of(home)) == len(trials)
    for trial in trials:
        run = runs[trial.user_attrs["trial_uid"]]
        assert (run.info.status, run.data.tags[keys.STATE]) == ("FINISHED", "complete")
        assert not run.data.tags.get(keys.FAILURE)
        assert run.data.metrics["objective/auroc"] == pytest.approx(trial.value)
        for metric in run.data.metrics:
            history = home.client.get_metric_history(run.info.run_id, metric)
            steps = [m.step for m in history]
            assert len(set(steps)) == len(steps), metric
        for fold in (0, 1):
            history = home.client.get_metric_history(run.info.run_id, f"epoch/fold_{fold}/loss")
            assert [m.step for m in history] == [0, 1]
    assert not list(home.settings.checkpoints.glob("*")), "what ended leaves no checkpoint"


def epochs_trained(monkeypatch) -> list[int]:
    """The epochs that are trained from now on."""
    trained: list[int] = []
    epoch = FoldTrainer._epoch

    def count(self, phase, data, order, rates, where, score):
        trained.append(where.number)
        return epoch(self, phase, data, order, rates, where, score)

    monkeypatch.setattr(FoldTrainer, "_epoch", count)
    return trained


LONGER = ("--set", "training.max_epochs=4")


@pytest.mark.parametrize("at", [2, 4, 7], ids=["first_fold", "between_folds", "second_fold"])
def test_a_killed_trial_goes_on_at_its_epoch_to_the_same_numbers(
    home, make_home, tmp_path, plant, monkeypatch, at
):
    with monkeypatch.context() as patch:
        patch.setattr(TakenTrial, "give_back", lambda *_: None)  # as kill -9: nothing is said
        patch.setattr("breakhis_search.study.leases.Leases.close", lambda *_: None)
        patch.setattr("breakhis_search.study.process_mark._start_time", lambda _pid: "1")
        bomb = Bomb(KeyboardInterrupt(), at)
        patch.setattr(
            "breakhis_search.cli.progress.TerminalObserver.epoch_finished",
            lambda *_, **__: bomb(),
        )
        assert home.search("binary", 1, *LONGER) == 130
    assert study_of(home).trials[0].state == TrialState.RUNNING
    with monkeypatch.context() as patch:
        trained = epochs_trained(patch)
        patch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
        assert home.search("binary", 1, *LONGER) == 0
    # The epoch that was at work when the process ended is trained again, those before are not.
    assert len(trained) == 8 - (at - 1)
    [trial] = study_of(home).trials
    assert trial.state == TrialState.COMPLETE
    other = make_home(tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
        assert other.search("binary", 1, *LONGER) == 0
    [never_stopped] = study_of(other).trials
    assert trial.params == never_stopped.params
    assert trial.value == pytest.approx(never_stopped.value, abs=1e-6)
    assert trial.intermediate_values == pytest.approx(never_stopped.intermediate_values, abs=1e-6)


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


class _OutOfMemoryError(Exception):
    """As a backend says it."""

    def __str__(self) -> str:
        return "RESOURCE_EXHAUSTED: planted"


def want_memory_for(monkeypatch, more_than: int) -> list[int]:
    """Let every step of more images fail for want of memory; the sizes that were tried."""
    tried: list[int] = []
    take = Step.take

    def take_or_fail(self, inputs, *rest):
        tried.append(len(inputs))
        if len(inputs) > more_than:
            raise _OutOfMemoryError
        return take(self, inputs, *rest)

    monkeypatch.setattr(Step, "take", take_or_fail)
    return tried


def test_want_of_memory_makes_the_parts_smaller_and_not_the_batch(home, monkeypatch):
    tried = want_memory_for(monkeypatch, more_than=4)
    assert home.search("binary", 1) == 0
    assert set(tried) == {16, 8, 4}
    [trial] = runs_of(home)
    assert trial.data.tags[keys.BATCH_IN_PARTS] == "4"
    assert trial.data.params["training/batch_size"] == "16"
    assert (trial.info.status, trial.data.tags[keys.STATE]) == ("FINISHED", "complete")
    for fold in (0, 1):
        history = home.client.get_metric_history(trial.info.run_id, f"epoch/fold_{fold}/loss")
        assert [m.step for m in history] == [0, 1]


def test_want_of_memory_for_the_smallest_parts_is_the_cause_of_a_failure(home, monkeypatch, capsys):
    want_memory_for(monkeypatch, more_than=0)
    assert home.search("binary", 1) == 0
    assert "no trial is complete" in capsys.readouterr().out
    [trial] = runs_of(home)
    assert "out of memory on" in trial.data.tags[keys.FAILURE]
    assert "4 images at a time" in trial.data.tags[keys.FAILURE]
    assert home.run("status") == 0
    assert "binary-demo@v1: 1 failed: out of memory on" in capsys.readouterr().out


def test_a_trial_of_a_dead_process_goes_on(home):
    assert home.search("binary", 1) == 0
    study = study_of(home)
    dead = study.ask()
    study._storage.set_trial_user_attr(dead._trial_id, "trial_uid", "dead")
    assert study.trials[1].state == TrialState.RUNNING
    assert home.search("binary", 2) == 0
    trials = study_of(home).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials[1].user_attrs["trial_uid"] == "dead"


def test_the_same_values_are_not_trained_twice(home, monkeypatch, capsys):
    monkeypatch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
    assert home.search("binary", 1) == 0
    study_of(home).enqueue_trial(study_of(home).trials[0].params)
    trained = epochs_trained(monkeypatch)
    assert home.search("binary", 2) == 0
    assert trained == []
    first, second = study_of(home).trials
    assert second.value == first.value
    assert "the same values as trial 0: not trained again" in capsys.readouterr().out
    run = next(r for r in runs_of(home) if r.data.tags[keys.TRIAL_NUMBER] == "1")
    assert (run.info.status, run.data.tags[keys.STATE]) == ("FINISHED", "reused")
    assert run.data.tags[keys.SAME_AS] == "0"
    assert home.run("compare", "--study", "binary-demo@v1") == 0
    assert "reused" in capsys.readouterr().out


@pytest.mark.parametrize("ends", [TrialState.COMPLETE, TrialState.FAIL])
def test_the_same_values_at_work_elsewhere_are_waited_for(home, monkeypatch, capsys, ends):
    monkeypatch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
    assert home.search("binary", 1) == 0
    study = study_of(home)
    [model] = study.trials
    values = {**model.params, "optimizer/learning_rate": 0.00123}
    study.enqueue_trial(values)
    other = study.ask()
    for name, distribution in model.distributions.items():
        other._suggest(name, distribution)
    for name in ("stage", "median_epoch", "nll"):
        other.set_user_attr(name, model.user_attrs[name])
    other.set_user_attr("trial_uid", "elsewhere")
    study.enqueue_trial(values)
    trained = epochs_trained(monkeypatch)

    def end_it_once_it_is_waited_for() -> None:
        with suppress(AssertionError):  # the test says below what did not happen
            wait_until(lambda: any("waits_for" in t.user_attrs for t in study_of(home).trials))
        study.tell(other, 0.7 if ends == TrialState.COMPLETE else None, state=ends)
        leases.release("elsewhere")

    with closing(Leases(home.settings.studies_uri)) as leases:
        leases.take("elsewhere")
        elsewhere = threading.Thread(target=end_it_once_it_is_waited_for)
        elsewhere.start()
        assert home.search("binary", 3) == 0
        elsewhere.join()
    third = study_of(home).trials[2]
    assert third.state == TrialState.COMPLETE
    told = capsys.readouterr().out
    assert "it waits for trial 1, which has the same values" in told
    if ends == TrialState.COMPLETE:
        assert (third.value, third.user_attrs["same_as"], trained) == (0.7, 1, [])
        assert "the same values as trial 1: not trained again" in told
    else:
        assert "same_as" not in third.user_attrs
        assert trained, "what its twin failed at is tried once more"


def test_cut_off_behind_the_upload_of_the_model_it_registers_what_is_there(
    home, monkeypatch, capsys
):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.workflow.registration.register", stop)
        assert home.search("binary", 1) == 130
    assert home.search("binary", 1) == 0
    image = next(home.demo.rglob("*.png"))
    assert home.run("predict", "--study", "binary", "--demo", str(image)) == 0
    assert image.name in capsys.readouterr().out


def test_a_trial_given_up_here_ends_its_run_of_another_machine(home, monkeypatch):
    monkeypatch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
    assert home.search("binary", 1) == 0
    trial = study_of(home).ask()
    trial.set_user_attr("trial_uid", "elsewhere")
    trial.set_user_attr("processes_lost", {"lost": 2})
    journal = Journal(home.folder / "elsewhere" / "elsewhere")
    tags = {keys.ROLE: "trial", keys.STATE: "running", keys.TRIAL_NUMBER: "1"}
    experiment = "breakhis-binary-demo"
    journal.begin(name="x", tags=tags, parent_uid=None, experiment=experiment, once=True, turn=1)
    Delivery(home.client, home.settings).deliver(journal)
    journal.release()
    assert home.search("binary", 2) == 0
    assert study_of(home).trials[1].state == TrialState.FAIL
    [run] = [r for r in runs_of(home) if r.data.tags[keys.TRIAL_UID] == "elsewhere"]
    assert run.info.status == "FAILED"
    assert "its process ended 3 times" in run.data.tags[keys.FAILURE]


def test_who_runs_out_of_time_waits_for_the_trials_of_others(home, monkeypatch):
    monkeypatch.setattr("breakhis_search.workflow.search.select_winner", lambda *_: None)
    assert home.search("binary", 1) == 0
    other = study_of(home).ask()
    other.set_user_attr("trial_uid", "elsewhere")

    def end_it() -> None:
        time.sleep(3)
        study_of(home).tell(other.number, state=TrialState.FAIL)

    with closing(Leases(home.settings.studies_uri)) as leases:
        leases.take("elsewhere")
        elsewhere = threading.Thread(target=end_it)
        elsewhere.start()
        assert home.search("binary", 3, "--timeout", "1s") == 0
        assert study_of(home).trials[1].state == TrialState.FAIL, "it was waited for"
        elsewhere.join()


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
    assert "below the configured floors: image/auroc" in capsys.readouterr().out
    assert home.run("promote", "--study", "binary", "--demo", "--force") == 0
    version = home.client.get_model_version_by_alias("breakhis-binary-demo", "champion")
    assert str(version.version) == "1"


def test_hand_picked_first_trials_are_run_first(home):
    first = "enqueue=[{optimizer/learning_rate: 0.0012, augmentation/strength: 0.25}]"
    assert home.search("binary", 1, "--set", first) == 0
    params = study_of(home).trials[0].params
    assert params["optimizer/learning_rate"] == 0.0012
    assert params["augmentation/strength"] == 0.25
