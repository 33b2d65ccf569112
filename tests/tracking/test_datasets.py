"""Dataset inputs of runs and scores of logged models, on a real SQLite MLflow."""

from __future__ import annotations

from breakhis_search.settings import read_settings
from breakhis_search.tracking import keys, logged_models
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store

TAGS = {
    keys.DATA_FINGERPRINT: "0123456789abcdef" * 4,
    keys.MAGNIFICATION: "100",
    keys.DEMO: "false",
}


def record(settings, uid: str, score: float) -> Journal:
    journal = Journal(settings.journal_dir / uid)
    journal.begin(name=uid, tags=TAGS, parent_uid=None, experiment="breakhis-test")
    journal.set_tags({keys.ARCHITECTURE: "small_cnn"})
    journal.log_metrics({"objective/auroc": score, "seconds/total": 9.0})
    folder = journal.place_for_model("model")
    folder.mkdir(parents=True)
    (folder / "x.txt").write_text("weights")
    journal.log_model("model", tags={keys.ROLE: "fold"})
    journal.finish("FINISHED")
    return journal


def test_models_are_ranked_by_their_scores_and_know_their_data_once(tmp_path):
    settings = read_settings({}, home=tmp_path)
    client = open_store(settings)
    for uid, score in (("low", 0.6), ("high", 0.9)):
        journal = record(settings, uid, score)
        Delivery(client, settings).deliver(journal)
    (journal.folder / "cursor").write_text("0")  # as after a crash before the cursor was written
    Delivery(client, settings).deliver(journal)
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    order = [{"field_name": "metrics.objective/auroc", "ascending": False}]
    models = client.search_logged_models([experiment], order_by=order)
    assert [m.tags[keys.TRIAL_UID] for m in models] == ["high", "low"]
    assert models[0].tags[keys.ARCHITECTURE] == "small_cnn"
    [metric] = models[0].metrics
    assert (metric.key, metric.value, metric.dataset_name) == (
        "objective/auroc",
        0.9,
        "breakhis-100x",
    )
    run_id = models[0].source_run_id
    [given] = client.get_run(run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == (
        "breakhis-100x",
        TAGS[keys.DATA_FINGERPRINT][:36],
    )
    assert len(client.get_metric_history(run_id, "objective/auroc")) == 1


def test_a_model_that_was_half_sent_gets_its_scores_once(tmp_path, monkeypatch):
    settings = read_settings({}, home=tmp_path)
    client = open_store(settings)
    journal = record(settings, "half", 0.7)
    link = logged_models._link_scores
    monkeypatch.setattr(logged_models, "_link_scores", lambda *of: (link(*of), link(*of)))
    Delivery(client, settings).deliver(journal)
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    [model] = client.search_logged_models([experiment])
    assert [m.value for m in model.metrics] == [0.7]
