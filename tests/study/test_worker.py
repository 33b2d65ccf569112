"""Trials that are cut off: at every moment, Optuna and MLflow come to say the same."""

from __future__ import annotations

import platform
import signal
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.errors import TrackingError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.study import budget, worker
from breakhis_search.study.progress import SilentObserver
from breakhis_search.study.report import make_report
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store

DEAD = {"host": platform.node(), "boot": "an earlier boot", "pid": 1}
PICKED = {"optimizer/learning_rate": 0.0012}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return read_settings({}, home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(settings) -> Any:
    return open_store(settings)


@pytest.fixture
def context(settings, client) -> SimpleNamespace:
    """What the loop needs of a study's context, on a real store."""
    return SimpleNamespace(
        journal=lambda uid: Journal(settings.journal_dir / uid),
        delivery=Delivery(client, settings, make_report),
        observer=SilentObserver(),
        stage="search",
    )


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def cut_off(study: optuna.Study, uid: str | None, mark: object = DEAD) -> optuna.Trial:
    """A running trial as its killed process left it."""
    trial = study.ask()
    trial.suggest_float("optimizer/learning_rate", 0.001, 0.01)
    if mark:
        trial.set_user_attr(worker.LEASE, mark)
    if uid:
        trial.set_user_attr(worker.UID, uid)
    return trial


def begun(context: SimpleNamespace, uid: str) -> Journal:
    """The journal of a trial, begun and delivered."""
    journal = context.journal(uid)
    tags = {keys.STATE: "running"}
    journal.begin(name=uid, tags=tags, parent_uid=None, experiment="breakhis-test")
    context.delivery.deliver(journal)
    return journal


def run_of(client: Any, uid: str) -> Any:
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    [run] = client.search_runs([experiment], f"tags.`{keys.TRIAL_UID}` = '{uid}'")
    return run


def states(study: optuna.Study) -> list[TrialState]:
    return [t.state for t in study.trials]


def test_ctrl_c_between_asking_and_the_mark_leaves_no_trial_without_an_owner(
    study, context, monkeypatch
):
    def ask_and_strike():
        trial = ask()
        signal.raise_signal(signal.SIGINT)
        return trial

    ask, handler = study.ask, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(study, "ask", ask_and_strike)
    study.enqueue_trial(PICKED)
    with pytest.raises(KeyboardInterrupt):
        worker.run_batch(study, context, at_most=1)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[0].user_attrs[budget.INTERRUPTED]
    assert study.trials[1].system_attrs["fixed_params"] == PICKED
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_trial_killed_before_its_mark_is_settled_once_that_is_certain(study, context):
    trial = cut_off(study, None, mark=None)
    assert worker.settle_dead_trials(study, context) == [], "its process may be about to mark it"
    stored = study._storage._get_trial(trial._trial_id)
    stored.datetime_start = datetime.now() - timedelta(minutes=2)  # noqa: DTZ005 - as Optuna
    assert worker.settle_dead_trials(study, context) == [0]
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_killed_before_its_run_began_is_settled(study, context):
    cut_off(study, "never-begun")
    assert worker.settle_dead_trials(study, context) == [0]
    assert context.delivery.deliver(context.journal("never-begun"))
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.parametrize("was_finished", [False, True], ids=["running", "recorded as complete"])
def test_a_delivered_run_of_a_dead_trial_ends_as_optuna_says(
    study, context, client, settings, was_finished
):
    uid = f"delivered-{was_finished}"
    trial = cut_off(study, uid)
    journal = begun(context, uid)
    if was_finished:
        journal.set_tags({keys.STATE: "complete"})
        journal.finish("FINISHED")
        context.delivery.deliver(journal)
    journal.release()  # as the end of its process does
    assert run_of(client, uid).info.status == ("FINISHED" if was_finished else "RUNNING")
    assert worker.settle_dead_trials(study, context) == [0]
    context.delivery.deliver_all(settings.journal_dir)
    run = run_of(client, uid)
    assert run.info.status == "FAILED"
    assert run.data.tags[keys.STATE] == "interrupted"
    assert study.trials[1].system_attrs["fixed_params"] == trial.params


def test_an_interrupted_trial_whose_end_found_no_disk_space_is_ended_later(
    study, context, client, settings
):
    trial = cut_off(study, "no-end")
    begun(context, "no-end").release()
    trial.set_user_attr(budget.INTERRUPTED, True)
    study.tell(trial, state=TrialState.FAIL)
    for _ in range(2):
        assert worker.settle_dead_trials(study, context) == []
        context.delivery.deliver_all(settings.journal_dir)
    assert run_of(client, "no-end").info.status == "FAILED"
    kinds = (settings.journal_dir / "no-end" / "records.jsonl").read_text().count('"finish"')
    assert kinds == 1, "ended once"


def test_a_store_lost_after_training_does_not_cost_the_trial(study, context, monkeypatch):
    def refuse(_journal):
        raise TrackingError("the store is gone")

    def train(*_args, **_kwargs):
        yield from ()
        return 0.75

    monkeypatch.setattr(worker, "run_trial", train)
    monkeypatch.setattr(context.delivery, "deliver", refuse)
    with pytest.raises(TrackingError, match="the store is gone"):
        worker.run_batch(study, context, at_most=1)
    assert states(study) == [TrialState.COMPLETE]
    assert study.best_value == 0.75


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (KeyboardInterrupt("stop"), [TrialState.FAIL, TrialState.WAITING]),
        (TrackingError("the store is gone"), [TrialState.FAIL, TrialState.WAITING]),
        (ZeroDivisionError("a bug"), [TrialState.FAIL]),
    ],
    ids=["Ctrl-C", "lost store", "bug"],
)
def test_what_stopped_a_trial_from_outside_is_tried_again(study, context, monkeypatch, error, left):
    def stop(trial, *_args, **_kwargs):
        trial.suggest_float("optimizer/learning_rate", 0.001, 0.01)
        yield from ()
        raise error

    monkeypatch.setattr(worker, "run_trial", stop)
    with pytest.raises(type(error), match=str(error)):
        worker.run_batch(study, context, at_most=1)
    assert states(study) == left
    assert not budget.counts_towards_budget(study.trials[0])
