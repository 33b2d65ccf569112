"""``status --gc``: what takes room is shown; models that were beaten may go, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from breakhis_search.settings import read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store
from breakhis_search.workflow.housekeeping import delete_model, find_beaten_models


@pytest.fixture
def kept(home):
    """Three trials and a finalist, each with a model of its own size."""
    settings = home.settings
    for number, (role, score) in enumerate(
        [("trial", 0.7), ("trial", 0.9), ("trial", 0.8), ("finalist", 0.1)]
    ):
        journal = Journal(settings.journal_dir / f"uid-{number}")
        tags = {
            keys.ROLE: role,
            keys.STUDY: "binary@v1",
            keys.STUDY_UID: "study",
            keys.TRIAL_NUMBER: str(number),
        }
        journal.begin(name=f"t{number}", tags=tags, parent_uid=None, experiment="breakhis-binary")
        journal.log_metrics({"objective/auroc": score})
        folder = journal.place_for_model("model")
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text("flavors: {}\n")
        (folder / "weights").write_bytes(b"x" * (number + 1) * 1_000_000)
        journal.log_model("model", tags={keys.ROLE: "fold", keys.STUDY: "binary@v1"})
        journal.finish("FINISHED")
        Delivery(open_store(settings), settings).deliver(journal)
    return home


def names_of(home) -> set[str]:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary'")
    models = client.search_logged_models([experiment.experiment_id])
    runs = [client.get_run(model.source_run_id) for model in models]
    return {f"{r.data.tags[keys.ROLE]} {r.data.tags[keys.TRIAL_NUMBER]}" for r in runs}


def test_it_shows_sizes_first_and_changes_nothing(kept, capsys):
    assert kept.run("status", "--gc", "--keep", "1") == 0
    told = capsys.readouterr().out
    assert "3.0 MB  model of binary@v1 trial 2 (score 0.8000): would be deleted" in told
    assert "1.0 MB  model of binary@v1 trial 0 (score 0.7000): would be deleted" in told
    assert "runs: pages, predictions, models" in told
    assert "Nothing was changed; add --yes to free 4.0 MB." in told
    assert names_of(kept) == {"trial 0", "trial 1", "trial 2", "finalist 3"}


def test_the_best_and_finalists_stay_and_the_room_is_free(kept, capsys):
    beaten = find_beaten_models(kept.settings, keep=1)
    assert kept.run("status", "--gc", "--keep", "1", "--yes") == 0
    assert "deleted: 2 models, 4.0 MB" in capsys.readouterr().out
    assert names_of(kept) == {"trial 1", "finalist 3"}
    assert not any(Path(str(model.folder)).exists() for model in beaten)
    assert kept.run("status", "--gc", "--keep", "1") == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_a_study_says_by_itself_how_many_models_it_keeps(kept, capsys):
    settings = kept.settings
    journal = Journal(settings.journal_dir / "study-run")
    tags = {keys.ROLE: keys.ROLE_STUDY, keys.STUDY: "binary@v1", keys.STUDY_UID: "study"}
    journal.begin(name="study", tags=tags, parent_uid=None, experiment="breakhis-binary")
    (journal.artifacts / keys.ARTIFACT_CONFIG).write_text("search: {models_kept: 2}\n")
    journal.log_artifacts()
    journal.finish("FINISHED")
    assert [m.trial for m in find_beaten_models(settings, keep=None)] == [], "5 without its run"
    Delivery(open_store(settings), settings).deliver(journal)
    assert [m.trial for m in find_beaten_models(settings, keep=None)] == [0]
    assert kept.run("status", "--gc") == 0
    assert "model of binary@v1 trial 0 (score 0.7000): would be deleted" in capsys.readouterr().out


def test_what_was_cut_off_half_way_is_finished_the_next_time(kept):
    settings = read_settings(home=kept.settings.home)
    first, *_ = find_beaten_models(settings, keep=1)
    assert first.folder is not None
    for file in first.folder.iterdir():  # as far as it came
        file.unlink()
    for model in find_beaten_models(settings, keep=1):
        delete_model(settings, model)
    assert names_of(kept) == {"trial 1", "finalist 3"}


def test_by_default_the_models_a_search_keeps_stay(kept, capsys):
    assert kept.run("status", "--gc") == 0
    assert "No study has more models of search trials than it keeps" in capsys.readouterr().out
