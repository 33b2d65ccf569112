"""Two searches in one folder at once keep out of each other's way.

A lock of the operating system tells two open files of one process apart as it does two processes;
``tests/tracking/test_ownership.py`` has the real second process.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.errors import TrackingError
from breakhis_search.settings import read_settings
from breakhis_search.study.leases import Leases
from breakhis_search.study.storage import open_storage
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.workflow.preparation import Watcher, prepare_run
from breakhis_search.workflow.request import RunRequest
from breakhis_search.workflow.search import open_once


def study_of(home) -> optuna.Study:
    return optuna.load_study(study_name="binary-demo@v1", storage=home.settings.studies_uri)


def test_two_that_open_a_new_study_at_once_give_it_one_identity(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'studies.db'}"
    storage = open_storage(uri)
    slow = optuna.Study.set_user_attr

    def write_slowly(study: optuna.Study, *of: object) -> None:
        time.sleep(0.3)  # the other one has read by now that there is none
        slow(study, *of)

    monkeypatch.setattr(optuna.Study, "set_user_attr", write_slowly)
    found: list[str] = []

    def begin() -> None:
        def open_study() -> optuna.Study:
            return optuna.create_study(storage=storage, study_name="x@v1", load_if_exists=True)

        with closing(Leases(uri)) as leases:
            found.append(open_once(open_study, "x@v1", leases)[1])

    both = [threading.Thread(target=begin) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(found) == 2
    assert len(set(found)) == 1


def test_the_live_journal_of_another_study_is_left_alone(searched_alone):
    theirs = Journal(searched_alone.settings.journal_dir / "theirs")
    name = "breakhis-binary-demo"
    theirs.begin(name="multiclass-demo@v1 trial 000", tags={}, parent_uid=None, experiment=name)
    try:
        assert searched_alone.search("binary", 3) == 0
        assert [r.kind for r in theirs.undelivered()] == ["run"]
        [experiment] = searched_alone.client.search_experiments(filter_string=f"name = '{name}'")
        condition = f"tags.`{keys.TRIAL_UID}` = 'theirs'"
        assert not searched_alone.client.search_runs([experiment.experiment_id], condition)
    finally:
        (theirs.folder / "records.jsonl").unlink()
        theirs.release()


def test_a_study_that_another_process_leads_is_joined(searched_alone, capsys):
    """The other one is at the last trial of the budget and then goes: this one ends the study."""
    study = study_of(searched_alone)
    budget = len(study.trials) + 2
    with closing(Leases(searched_alone.settings.studies_uri)) as theirs:
        assert theirs.take(f"{study.user_attrs['uid']}/lead")
        last = study.ask()
        study._storage.set_trial_user_attr(last._trial_id, "trial_uid", "theirs")
        assert theirs.take("theirs")

        def go() -> None:
            while len(study_of(searched_alone).trials) < budget or not _is_over(
                searched_alone, budget - 1
            ):
                time.sleep(0.1)
            theirs.close()  # gone without a word, as a killed process is

        other = threading.Thread(target=go)
        other.start()
        assert searched_alone.search("binary", budget) == 0
        other.join()
    told = capsys.readouterr().out
    assert "joining binary-demo@v1, which another process leads" in told
    states = [t.state for t in study_of(searched_alone).trials]
    assert states == [TrialState.COMPLETE] * budget, "and what the other one was at goes on here"


def _is_over(home, number: int) -> bool:
    return study_of(home).trials[number].state.is_finished()


def test_a_run_that_only_joins_trains_and_registers_nothing(home, capsys):
    assert home.search("binary", 1, "--join") == 0
    assert "Nothing is left to train; the run that leads" in capsys.readouterr().out
    assert [t.state for t in study_of(home).trials] == [TrialState.COMPLETE]
    assert home.client.search_registered_models() == []
    assert home.search("binary", 1) == 0
    assert "finalist: trial" not in capsys.readouterr().out, "the one that joined trained them"
    assert len(home.client.search_model_versions("name = 'breakhis-binary-demo'")) == 1


def test_a_run_that_only_joins_trains_no_study_that_nobody_leads(home, capsys, monkeypatch):
    """As where the images of a node, or an option of its command, are others."""
    monkeypatch.setattr("breakhis_search.workflow.preparation.JOIN_PATIENCE_S", 0.0)
    study_of_another = ("--set", "training.batch_size=8", "--join")
    assert home.search("binary", 1, "--join") == 0
    capsys.readouterr()
    assert home.search("binary", 1, *study_of_another) == 1
    told = capsys.readouterr().err
    assert "nobody leads binary-demo with these data, split, weights, study file and code" in told
    assert "there is binary-demo@v1" in told
    storage = open_storage(home.settings.studies_uri)
    assert [s.study_name for s in storage.get_all_studies()] == ["binary-demo@v1"]


def test_a_worker_of_a_study_that_is_open_needs_no_mlflow(home, monkeypatch):
    """It trains, and its records wait: a server may be away when a worker begins, too."""
    request = RunRequest("binary", data=home.demo)
    monkeypatch.chdir(home.folder)
    version = prepare_run(request, read_settings(), Watcher()).version
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    joined = prepare_run(request, read_settings(), Watcher(), version=version)
    assert joined.version.name == version.name
    with pytest.raises(TrackingError, match="does not answer"):
        _ = joined.client
