"""A whole search on real stores: what it leaves in Optuna, MLflow and the registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.models import Model
from optuna.trial import TrialState

from breakhis_search.data.images import prepare
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.predictions import logits_of, read_parquet
from breakhis_search.tracking import keys

STUDY = "binary-demo@v1"
MODEL = "breakhis-binary-demo"


def runs(home, role: str) -> list:
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    return client.search_runs([experiment.experiment_id], f"tags.`{keys.ROLE}` = '{role}'")


def optuna_study(home, name: str = STUDY) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=home.settings.studies_uri)


@pytest.fixture(scope="module")
def trial_run(searched):
    return min(runs(searched, "trial"), key=lambda r: int(r.data.tags[keys.TRIAL_NUMBER]))


@pytest.fixture(scope="module")
def artifacts(searched, trial_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("artifacts")
    for name in ("figures", "predictions"):
        searched.client.download_artifacts(trial_run.info.run_id, name, str(target))
    return target


def test_one_parent_and_a_child_per_trial(searched):
    [parent] = runs(searched, "study")
    trials = runs(searched, "trial")
    assert parent.info.status == "FINISHED"
    assert len(trials) == 3
    assert {r.data.tags[keys.MLFLOW_PARENT] for r in trials} == {parent.info.run_id}


def test_mlflow_says_what_optuna_says(searched):
    by_uid = {r.data.tags[keys.TRIAL_UID]: r for r in runs(searched, "trial")}
    for trial in optuna_study(searched).trials:
        run = by_uid[trial.user_attrs["trial_uid"]]
        assert trial.state == TrialState.COMPLETE
        assert run.info.status == "FINISHED"
        assert run.data.metrics["objective/auroc"] == pytest.approx(trial.value)
        for name, value in trial.params.items():
            assert run.data.params[name] == str(value)


def test_a_trial_logs_what_the_study_fixes_for_all(trial_run):
    params = trial_run.data.params
    fixed = ("data/height_px", "data/magnification", "training/max_epochs", "training/batch_size")
    assert [params[name] for name in fixed] == ["32", "all", "2", "16"]


def test_a_trial_says_where_it_came_from(trial_run):
    tags = trial_run.data.tags
    for key in (keys.DATA_FINGERPRINT, keys.SPLIT_DIGEST, keys.SEED, keys.GIT_COMMIT, keys.DEVICE):
        assert tags[key]
    assert tags[keys.VERSIONS + "tensorflow"] != "absent"
    assert tags[keys.DEMO] == "true"


def test_a_trial_logs_durations_and_memory(trial_run):
    metrics = trial_run.data.metrics
    assert metrics["seconds/total"] >= metrics["seconds/train"] > 0
    assert metrics[keys.METRIC_PEAK_MEMORY] > 10
    assert metrics[keys.METRIC_PARAMETERS] > 1000


def test_epochs_are_logged_once_per_step(searched, trial_run):
    for fold in (0, 1):
        name = f"epoch/fold_{fold}/val_loss"
        history = searched.client.get_metric_history(trial_run.info.run_id, name)
        assert [m.step for m in history] == [0, 1]


def test_a_trial_names_the_images_it_was_given_and_counts_them(trial_run, artifacts):
    table = read_parquet(artifacts / "predictions" / "predictions.parquet")
    [given] = trial_run.inputs.dataset_inputs
    profile = json.loads(given.dataset.profile)
    assert (given.dataset.name, profile["num_rows"]) == ("breakhis-demo-all", len(table))
    assert profile["num_patients"] == table["accession"].nunique()


def test_the_predictions_hold_every_development_image_once(searched, artifacts):
    table = read_parquet(artifacts / "predictions" / "predictions.parquet")
    assert table["image"].is_unique
    assert set(table["fold"]) == {0, 1}
    sealed = int(runs(searched, "trial")[0].data.tags[keys.SEALED_TEST].split()[0])
    assert sealed > 0
    assert table["accession"].nunique() + sealed == 40


def test_the_logged_metrics_follow_from_the_predictions(trial_run, artifacts):
    table = read_parquet(artifacts / "predictions" / "predictions.parquet")
    for name, value in compute_metrics(table).items():
        assert trial_run.data.metrics[name] == pytest.approx(value), name


def test_the_figures_and_their_points_are_there(artifacts):
    page = (artifacts / "figures" / "trial.html").read_text()
    assert len(page) < 6e6
    assert "plotly" in page
    for name in ("roc", "pr", "confusion", "history"):
        assert len(pd.read_csv(artifacts / "figures" / f"{name}.csv")) > 0


def test_the_logged_model_answers_the_logged_predictions(searched, trial_run, artifacts):
    [output] = trial_run.outputs.model_outputs
    model = mlflow.keras.load_model(f"models:/{output.model_id}")
    table = read_parquet(artifacts / "predictions" / "predictions.parquet")
    first = table[table["fold"] == 0].reset_index(drop=True)
    root = searched.demo / "BreaKHis_v1" / "histology_slides" / "breast"
    images = np.stack([prepare((root / name).read_bytes(), 32, 48) for name in first["image"]])
    answer = np.asarray(model(images.astype("float32")))
    np.testing.assert_allclose(answer, logits_of(first), atol=1e-4)


def test_models_are_kept_of_trials_that_were_the_best_at_their_end(searched):
    complete = [r for r in runs(searched, "trial") if r.info.status == "FINISHED"]
    best = -1.0
    for run in sorted(complete, key=lambda r: int(r.data.tags[keys.TRIAL_NUMBER])):
        score = run.data.metrics["objective/auroc"]
        assert bool(run.outputs.model_outputs) == (score >= best), run.info.run_name
        best = max(best, score)


def test_the_logged_model_has_signature_and_input_example(searched, trial_run):
    [output] = trial_run.outputs.model_outputs
    uri = f"models:/{output.model_id}"
    info = mlflow.models.get_model_info(uri)
    assert info.signature.inputs.inputs[0].shape == (-1, 32, 48, 3)
    folder = mlflow.artifacts.download_artifacts(uri)
    example = np.asarray(Model.load(folder).load_input_example(folder), dtype="float32")
    assert example.shape == (1, 32, 48, 3)
    assert np.asarray(mlflow.pyfunc.load_model(folder).predict(example)).shape == (1, 2)


def test_the_best_configuration_is_registered_as_champion(searched):
    client = searched.client
    version = client.get_model_version_by_alias(MODEL, "champion")
    study = optuna_study(searched)
    assert version.tags["breakhis.selected_trial"] == str(study.best_trial.number)
    assert version.tags[keys.ROLE] == "refit"
    assert "SYNTHETIC DEMO" in version.description
    assert "Not a medical device" in version.description


@pytest.fixture(scope="module")
def finalist(searched):
    [run] = runs(searched, "finalist")
    return run


def test_a_finalist_says_how_well_it_is_calibrated(finalist):
    for state in ("before", "after"):
        assert finalist.data.metrics[f"calibration/{state}/image/nll"] > 0
    low, high = (finalist.data.metrics[f"interval/patient/auroc/{end}"] for end in ("low", "high"))
    assert low <= finalist.data.metrics["patient/auroc"] <= high


def test_a_finalist_shows_its_mistakes_and_how_to_read_its_probabilities(
    searched, finalist, tmp_path
):
    folder = searched.client.download_artifacts(finalist.info.run_id, "figures", str(tmp_path))
    trial, mistakes = (Path(folder, f"{name}.html").read_text() for name in ("trial", "mistakes"))
    assert "<h2>Calibration</h2>" in trial
    assert "<h2>Decision thresholds</h2>" in trial
    assert "SYNTHETIC DEMO DATA" in trial
    assert "What Grad-CAM cannot tell" in mistakes
    assert "data:image/jpeg" in mistakes
    for name in ("reliability", "thresholds", "intervals", "cells"):
        assert len(pd.read_csv(Path(folder, f"{name}.csv"))) > 0


def test_the_refit_trained_for_the_median_best_epoch(searched):
    [refit] = runs(searched, "refit")
    best = optuna_study(searched).best_trial
    history = searched.client.get_metric_history(refit.info.run_id, "epoch/refit/loss")
    assert len(history) == best.user_attrs["median_epoch"]


def test_the_same_command_again_trains_nothing(searched, capsys):
    before = len(runs(searched, "trial"))
    assert searched.search("binary", 3) == 0
    assert len(runs(searched, "trial")) == before
    assert "continuing binary-demo@v1: 3 of 3 trials done" in capsys.readouterr().out
    assert len(searched.client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_compare_ranks_from_mlflow_alone(searched, capsys):
    assert searched.run("compare", "--study", "binary-demo", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    scores = [t["score"] for t in study["trials"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert [(f["rank"], f["trial"]) for f in study["finalists"]] == [(1, study["selected"])]
    assert study["tied"] == [study["selected"]]
    assert "wrong in every one of 3 trials" in study["hard_patients"]
    assert study["leak_alarm"] is None  # not asked of a demo, whose classes are easy
    assert "the only finalist" in study["why"]
    assert [m["magnification"] for m in study["by_magnification"]] == [40, 100, 200, 400]
    assert study["best"]["architecture"][0]["architecture"] == "small_cnn"
    assert list(study["patients"]) == ["benign", "malignant"]
    assert min(study["patients"].values()) > 0


def test_compare_prints_the_leaderboard(searched, capsys):
    assert searched.run("compare", "--study", "binary-demo") == 0
    out = capsys.readouterr().out
    assert "Best of every architecture" not in out, "there is only one"
    assert out.startswith("SYNTHETIC DEMO")
    assert "Selected finalist, AUROC by magnification" in out
    assert re.search(
        r"the same over \d+ patients \(\d+ benign, \d+ malignant\)", " ".join(out.split())
    )
    assert "small_cnn" in out


def test_any_two_models_are_compared(searched, capsys):
    """A model and itself: the same trial by its number and by its run."""
    assert searched.run("compare", "--study", "binary-demo", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    best, worst = study["trials"][0], study["trials"][-1]
    others = ("compare", "--study", "binary-demo", "--pair")
    assert searched.run(*others, str(worst["trial"]), best["run_id"], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"]["difference"] == pytest.approx(found["interval"]["difference"])
    assert found["interval"]["low"] <= found["interval"]["high"]
    assert 0 < found["test"]["p_two_sided"] <= 1
    assert f"run {best['run_id'][:8]}" in found["verdict"]
    finalist = str(study["selected"])
    assert searched.run(*others, finalist, best["run_id"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("SYNTHETIC DEMO")
    assert f"so binary-demo@v1 trial {finalist} is compared, not its finalist" in " ".join(
        told.split()
    )

    assert searched.run(*others, best["run_id"], best["run_id"]) == 0
    assert "no difference can be shown" in capsys.readouterr().out
    for wrong, told in (
        ("7x", "names no model"),
        ("99", "expected a complete trial: 0, 1, 2"),
        ("0" * 32, "is no run of this program"),
    ):
        assert searched.run(*others, "0", wrong) == 1
        assert told in capsys.readouterr().err


def test_models_of_leaky_and_other_studies_are_compared_with_a_warning_or_not(searched, capsys):
    client, (first, second) = searched.client, [r.info.run_id for r in runs(searched, "trial")[:2]]
    others = ("compare", "--study", "binary-demo", "--pair", first, second)
    client.set_tag(second, keys.LEAKY, "true")
    assert searched.run(*others) == 0
    assert f"LEAKY: run {second[:8]}" in capsys.readouterr().out
    client.set_tag(second, keys.LEAKY, "false")
    client.set_tag(second, keys.OBJECTIVE, "balanced_accuracy")
    assert searched.run(*others) == 1
    assert "models of two objectives do not compare" in capsys.readouterr().err
    client.set_tag(second, keys.OBJECTIVE, "auroc")
    assert searched.run(*others, "--history") == 2


def test_compare_of_an_unknown_study_names_the_known_ones(searched, capsys):
    assert searched.run("compare", "--study", "binray") == 1
    assert "expected one of binary-demo@v1" in capsys.readouterr().err


def test_predict_answers_like_the_model_in_the_fresh_process(searched, capsys):
    image = next(searched.demo.rglob("*.png"))
    assert searched.run("predict", "--study", "binary", "--demo", str(image), "--json") == 0
    [answer] = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["label"] in ("benign", "malignant")
    total = answer["probability_benign"] + answer["probability_malignant"]
    assert total == pytest.approx(1.0)


def test_predict_tells_what_the_model_is_and_doubts_a_plot(searched, capsys, tmp_path):
    image = next(searched.demo.rglob("*.png"))
    plot = tmp_path / "plot.png"
    cv2.imwrite(str(plot), np.full((40, 60, 3), 250, np.uint8))
    arguments = ["predict", "--study", "binary@v1", "--demo", str(image), str(plot)]
    assert searched.run(*arguments) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC DEMO: drawn pictures" in out
    assert "version 1 (champion): trained at all magnifications in binary-demo@v1" in out
    assert "not a medical device" in out
    assert "warning: plot.png: hardly anything in it is stained" in out
    assert str(image.parent) not in out


def test_predict_names_a_bad_image_and_scores_the_others(searched, capsys, tmp_path):
    good, bad = next(searched.demo.rglob("*.png")), tmp_path / "bad.png"
    bad.write_text("not an image")
    code = searched.run("predict", "--study", "binary", "--demo", str(good), str(bad), "--json")
    answer = json.loads(capsys.readouterr().out)
    assert code == 3
    assert len(answer["predictions"]) == 1
    assert list(answer["bad"]) == [str(bad)]


def test_predict_writes_a_table_and_maps_of_the_reasons(searched, capsys, tmp_path):
    images = sorted(searched.demo.rglob("*.png"))[:3]
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    out = tmp_path / "answers.csv"
    given = [str(image) for image in (*images, bad)]
    arguments = ("predict", "--study", "binary", "--demo", *given, "--out", str(out), "--explain")
    assert searched.run(*arguments) == 3
    told = capsys.readouterr().out
    assert f"3 answers in {out}" in told
    assert f"3 maps in {tmp_path / 'answers_explained'}" in told
    assert f"not scored: {bad}" in told
    table = pd.read_csv(out)
    assert table["image"].tolist() == given
    assert table["not_scored"].notna().tolist() == [False, False, False, True]
    assert set(table["label"].dropna()) <= {"benign", "malignant"}
    for image, file in zip(images, table["explanation"], strict=False):
        assert Path(file).parent == tmp_path / "answers_explained"
        sheet, original = cv2.imread(file), cv2.imread(str(image))
        height, width = original.shape[:2]
        assert sheet.shape[0] > height, "the legend stands below"
        assert (sheet[:height, :width] == original).all()
        assert sheet[:height, -width:].shape == original.shape


def test_maps_that_cannot_be_written_are_told(searched, capsys, tmp_path):
    image = min(searched.demo.rglob("*.png"))
    (tmp_path / "answers_explained").write_text("a file where the folder should be")
    arguments = ("predict", "--study", "binary", "--demo", str(image), "--explain")
    assert searched.run(*arguments, "--out", str(tmp_path / "answers.csv")) == 1
    told = capsys.readouterr()
    assert "answers_explained" in told.err
    assert "Traceback" not in told.err
    assert "maps in" not in told.out


def test_status_shows_studies_and_models(searched, capsys):
    assert searched.run("status", "--json") == 0
    overview = json.loads(capsys.readouterr().out)
    assert overview["studies"][0]["name"] == STUDY
    assert overview["studies"][0]["complete"] == 3
    assert overview["studies"][0]["objective"] == "auroc"
    assert overview["models"][0]["aliases"] == ["champion"]
    assert overview["models"][0]["score"] == pytest.approx(
        float(searched.client.get_model_version(MODEL, "1").tags["score_out_of_fold"])
    )
    assert overview["models"][0]["demo"] is True
    assert overview["undelivered"] == 0


def test_promote_without_a_challenger_says_so(searched, capsys):
    assert searched.run("promote", "--study", "binary", "--demo") == 1
    told = capsys.readouterr().err
    assert "has no challenger" in told
    assert "--version 1 asks about the champion itself" in told
