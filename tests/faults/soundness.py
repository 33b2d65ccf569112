"""What must hold of a study whatever was done to its processes."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import h5py
import numpy as np
import optuna
from mlflow.artifacts import download_artifacts
from optuna.trial import TrialState

from breakhis_search.settings import Settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.journals import all_journals
from breakhis_search.tracking.models import KERAS_FILE
from breakhis_search.tracking.store import open_store

ENDED = {
    TrialState.COMPLETE: ("FINISHED", "complete"),
    TrialState.PRUNED: ("KILLED", "pruned"),
    TrialState.FAIL: ("FAILED", "failed"),
}


def study_of(settings: Settings) -> optuna.Study:
    """The one study of a folder."""
    return optuna.load_study(study_name="binary-demo@v1", storage=settings.studies_uri)


def runs_of(client: Any) -> list[Any]:
    """All runs of the demo's binary studies."""
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def assert_sound(
    settings: Settings, trials: int, *, folds: int, epochs: int, histories: Any = None
) -> list[Any]:
    """Every trial once, in both stores, with each of its steps once; nothing is left at work.

    Args:
        settings: Where things are.
        trials: The budget.
        folds: Of each trial.
        epochs: Of each fold.
        histories: A quicker MLflow client to read thousands of metrics with.

    Returns:
        The runs of the trials.
    """
    found = study_of(settings).get_trials(deepcopy=False)
    assert len(found) == trials, "the budget is met exactly"
    assert all(t.state in ENDED for t in found), "no trial is left at work"
    client = open_store(settings)
    runs = runs_of(client)
    assert not [r.info.run_id for r in runs if r.info.status == "RUNNING"]
    of_trials = [r for r in runs if r.data.tags[keys.ROLE] == keys.ROLE_TRIAL]
    counted = Counter(r.data.tags[keys.TRIAL_UID] for r in of_trials)
    assert counted == Counter(t.user_attrs["trial_uid"] for t in found), "one run per trial"
    by_uid = {r.data.tags[keys.TRIAL_UID]: r for r in of_trials}
    for trial in found:
        run = by_uid[trial.user_attrs["trial_uid"]]
        assert (run.info.status, run.data.tags[keys.STATE]) == ENDED[trial.state]
        if trial.state == TrialState.COMPLETE:
            assert abs(run.data.metrics["objective/auroc"] - trial.value) < 1e-9
            names = {a.path for a in client.list_artifacts(run.info.run_id)}
            assert {"figures", "predictions"} <= names, names
            _assert_steps(histories or client, run, folds=folds, epochs=epochs)
    _assert_models(client, of_trials)
    left = [f.name for f in settings.checkpoints.glob("*")]
    assert not left, f"checkpoints of runs that have ended: {left}"
    assert not [j.uid for j in all_journals(settings.journal_dir) if j.has_undelivered]
    return of_trials


def _assert_models(client: Any, runs: list[Any]) -> None:
    """Every model is whole, and what its trial says is there."""
    logged = client.search_logged_models([runs[0].info.experiment_id])
    known = {m.model_id: m for m in logged}
    assert all(str(m.status).endswith("READY") for m in logged), "no model is half delivered"
    outputs = [o.model_id for r in runs if r.outputs for o in r.outputs.model_outputs]
    assert len(outputs) == len(set(outputs)), "one model per trial"
    with TemporaryDirectory() as folder:
        for number, model in enumerate(outputs):
            source = f"{known[model].artifact_location}/{KERAS_FILE}"
            file = download_artifacts(
                source, dst_path=f"{folder}/{number}", tracking_uri=client.tracking_uri
            )
            with ZipFile(file) as archive:
                assert archive.testzip() is None
                weights = BytesIO(archive.read("model.weights.h5"))
            with h5py.File(weights) as content:
                content.visititems(_assert_finite)


def _assert_finite(path: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        assert np.isfinite(item[()]).all(), path


def _assert_steps(client: Any, run: Any, *, folds: int, epochs: int) -> None:
    for metric in run.data.metrics:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, metric)]
        assert len(steps) == len(set(steps)), f"{metric} has a step twice"
    for fold in range(folds):
        history = client.get_metric_history(run.info.run_id, f"epoch/fold_{fold}/loss")
        assert [m.step for m in history] == list(range(epochs)), "each epoch once, in order"
