"""``status --repair``: what dead processes left behind is shown first, then ended for good."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from datetime import timedelta

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.study.leases import Leases
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store
from breakhis_search.training.state import FoldState, Part
from breakhis_search.workflow.repair import find_orphans, repair


@pytest.fixture
def left(home):
    """A home in which a process died in the middle of a trial, and an earlier one in a refit."""
    settings = home.settings
    (settings.state_dir).mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(storage=settings.studies_uri, study_name="binary@v1")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("trial_uid", "left")
    delivery = Delivery(open_store(settings), settings)
    for uid in ("left", "refit"):
        journal = Journal(settings.journal_dir / uid)
        journal.begin(name=uid, tags={keys.STATE: "running"}, parent_uid=None, experiment="b")
        delivery.deliver(journal)
        journal.release()
    files = CheckpointFiles(settings.checkpoints)
    files.of("left").keep_state("fold_0", FoldState("all", (), Part(), Part()))
    files.settle()
    return home


def runs(home) -> dict[str, str]:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'b'")
    found = client.search_runs([experiment.experiment_id])
    return {r.data.tags[keys.TRIAL_UID]: r.info.status for r in found}


def trial_of(home) -> optuna.trial.FrozenTrial:
    [trial] = optuna.load_study(
        study_name="binary@v1", storage=home.settings.studies_uri
    ).get_trials()
    return trial


def test_it_shows_first_what_it_would_do(left, capsys):
    assert left.run("status", "--repair") == 0
    told = capsys.readouterr().out
    assert "binary@v1 trial 0: would be failed as interrupted" in told
    assert "run refit: would be ended as FAILED in MLflow" in told
    assert "Nothing was changed; add --yes to repair." in told
    assert trial_of(left).state == TrialState.RUNNING
    assert set(runs(left).values()) == {"RUNNING"}
    assert (left.settings.checkpoints / "left").exists()


def test_it_ends_what_nobody_will_go_on_with(left, capsys):
    assert left.run("status", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    assert (study["interrupted"], study["running"]) == (1, 0)
    assert left.run("status", "--repair", "--yes") == 0
    assert "repaired: 2" in capsys.readouterr().out
    assert trial_of(left).state == TrialState.FAIL
    assert runs(left) == {"left": "FAILED", "refit": "FAILED"}
    assert not (left.settings.checkpoints / "left").exists()
    assert left.run("status", "--repair") == 0
    assert "Nothing was left behind" in capsys.readouterr().out


@pytest.mark.parametrize("has_settled", [True, False])
def test_run_of_an_ended_trial_whose_journal_is_gone_is_ended(
    left, capsys, monkeypatch, has_settled
):
    study = optuna.load_study(study_name="binary@v1", storage=left.settings.studies_uri)
    study.tell(0, 0.5)
    shutil.rmtree(left.settings.journal_dir / "left")
    if has_settled:
        monkeypatch.setattr("breakhis_search.workflow.repair.SETTLED_AFTER", timedelta(0))
    assert left.run("status", "--repair", "--yes") == 0
    told = "run left of binary@v1 trial 0, which has ended; its records are not here"
    assert (told in capsys.readouterr().out) == has_settled
    assert runs(left)["left"] == ("FAILED" if has_settled else "RUNNING")
    assert trial_of(left).value == 0.5


@pytest.mark.parametrize("role", [keys.ROLE_STUDY, keys.ROLE_FINALIST, keys.ROLE_REFIT])
@pytest.mark.parametrize("is_led", [False, True])
def test_runs_of_a_study_that_nobody_is_at_are_ended(left, capsys, role, is_led):
    """The machine that led the study is lost, and its journals with it."""
    tags = {keys.STUDY_UID: "theirs", keys.ROLE: role, keys.TRIAL_NUMBER: "3"}
    journal = Journal(left.settings.journal_dir / "lost")
    journal.begin(name="the run", tags=tags, parent_uid=None, experiment="b")
    Delivery(left.client, left.settings).deliver(journal)
    journal.release()
    shutil.rmtree(journal.folder)
    with closing(Leases(left.settings.studies_uri)) as elsewhere:
        if is_led:
            assert elsewhere.take("theirs/lead")
        assert left.run("status", "--repair", "--yes") == 0
    assert ("the run, which nobody is at" in capsys.readouterr().out) == (not is_led)
    assert runs(left)["lost"] == ("RUNNING" if is_led else "FAILED")


def test_a_trial_that_was_just_asked_for_is_not_left_behind(home):
    home.settings.state_dir.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(storage=home.settings.studies_uri, study_name="binary@v1")
    study.enqueue_trial({})
    study.ask()  # it has no uid yet
    assert find_orphans(home.settings) == []


def test_a_trial_that_came_to_life_since_is_left_alone(left):
    found = find_orphans(left.settings)
    with closing(Leases(left.settings.studies_uri)) as elsewhere:
        assert elsewhere.take("left")
        repair(left.settings, found, lambda _: {}, print)
        assert trial_of(left).state == TrialState.RUNNING


def test_a_trial_that_went_on_elsewhere_keeps_its_checkpoints(left):
    with closing(Leases(left.settings.studies_uri)) as elsewhere:
        assert elsewhere.take("left")
        for _ in range(2):
            found = find_orphans(left.settings)
            assert [orphan.uid for orphan in found if orphan.uid == "left"] == []
            repair(left.settings, found, lambda _: {}, print)
        assert (left.settings.checkpoints / "left").exists()
        assert trial_of(left).state == TrialState.RUNNING


def test_what_lives_is_left_alone(left, capsys):
    journal = Journal(left.settings.journal_dir / "refit")
    with journal.held():
        assert left.run("status", "--repair", "--yes") == 0
    assert "refit" not in capsys.readouterr().out
    assert runs(left)["refit"] == "RUNNING"


def test_what_waits_with_rays_workers_is_told_and_delivered_where_it_is(left, capsys):
    here, there = left.settings.node_dir, left.settings.node_dir.with_name("another-machine")
    for uid, place in (("on-node", here), ("on-another", there)):
        journal = Journal(place / "journal" / uid)
        journal.folder.parent.mkdir(parents=True, exist_ok=True)
        journal.begin(name=uid, tags={}, parent_uid=None, experiment="b")
        journal.finish("FINISHED")
    for _ in range(2):
        assert left.run("status") == 0
        told = capsys.readouterr().out
        assert "2 records wait on another-machine: `status --deliver`, typed there" in told
        assert "everything is delivered" not in told
        assert left.run("status", "--deliver") == 0
        capsys.readouterr()
    assert runs(left)["on-node"] == "FINISHED"
    assert "on-another" not in runs(left), "its process may be alive, which only that machine knows"


def test_what_waits_for_delivery_is_counted_and_delivered(left, capsys):
    journal = Journal(left.settings.journal_dir / "waits")
    journal.begin(name="waits", tags={}, parent_uid=None, experiment="b")
    journal.log_metrics({"loss": 0.5})
    journal.finish("FINISHED")
    assert left.run("status") == 0
    told = capsys.readouterr().out
    assert "3 records of 1 runs wait for delivery, the oldest since 20" in told
    assert left.run("status", "--deliver") == 0
    assert "runs delivered" in capsys.readouterr().out
    assert runs(left)["waits"] == "FINISHED"
    assert left.run("status") == 0
    assert "everything is delivered to MLflow" in capsys.readouterr().out


def test_what_waits_for_a_server_that_is_away_is_told_all_the_same(left, capsys, monkeypatch):
    journal = Journal(left.settings.journal_dir / "waits-for-it")
    journal.begin(name="waits", tags={}, parent_uid=None, experiment="b")
    journal.release()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert left.run("status") == 0
    told = capsys.readouterr().out
    assert "the MLflow server http://127.0.0.1:9 does not answer: registered models and" in told
    assert "1 records of 1 runs wait for delivery" in told
    assert "binary@v1" in told, "its trials are in the studies' database"
    assert "Registered models" not in told, "nobody knows of any"
    assert left.run("status", "--json") == 0
    assert "does not answer" in json.loads(capsys.readouterr().out)["mlflow_says"]
