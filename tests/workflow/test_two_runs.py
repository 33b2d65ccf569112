"""Two searches in one folder at once keep out of each other's way.

A lock of the operating system tells two open files of one process apart as it does two processes;
``tests/tracking/test_ownership.py`` has the real second process.
"""

from __future__ import annotations

import optuna

from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal


def study_of(home) -> optuna.Study:
    return optuna.load_study(study_name="binary-demo@v1", storage=home.settings.studies_uri)


def test_the_live_journal_of_another_study_is_left_alone(searched):
    theirs = Journal(searched.settings.journal_dir / "theirs")
    name = "breakhis-binary-demo"
    theirs.begin(name="multiclass-demo@v1 trial 000", tags={}, parent_uid=None, experiment=name)
    try:
        assert searched.search("binary", 3) == 0
        assert [r.kind for r in theirs.undelivered()] == ["run"]
        [experiment] = searched.client.search_experiments(filter_string=f"name = '{name}'")
        condition = f"tags.`{keys.TRIAL_UID}` = 'theirs'"
        assert not searched.client.search_runs([experiment.experiment_id], condition)
    finally:
        (theirs.folder / "records.jsonl").unlink()
        theirs.release()


def test_a_study_that_another_process_runs_is_refused(searched, capsys):
    before = study_of(searched)
    parent = Journal(searched.settings.journal_dir / before.user_attrs["uid"])
    with parent.held() as is_ours:
        assert is_ours
        assert searched.search("binary", 4) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: binary-demo@v1 is being run by another process")
        assert "wait until that ends" in message
    assert len(study_of(searched).trials) == len(before.trials)
    assert not list(parent.undelivered()), "nothing was written into its journal"
