"""A search in two stages is one study: one parent in MLflow, one leaderboard, one numbering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from breakhis_search.study.pruning import STAGE
from breakhis_search.study.storage import open_storage
from breakhis_search.tracking import keys

STAGED = [
    "--set=space.model/architecture=mobilenet",
    "--set=space.transfer/trainable=[frozen, last_block]",
    "--set=space.head/units=0",
    "--set=training.max_epochs=2",
    "--set=training.head_epochs=1",
    "--set=stages={probe_share: 0.67, tune_from: 1}",
    "--set=finalists={count: 1, seeds: 1}",
]


pytestmark = pytest.mark.usefixtures("registers_quickly")


def test_probes_come_first_and_the_best_of_them_is_fine_tuned(home, real_weights, capsys):
    import optuna

    assert home.search("binary", 3, *STAGED, f"--weights-dir={real_weights}") == 0
    told = capsys.readouterr().out
    assert "stage probe, frozen backbones: up to trial 2 of 3" in told
    assert "stage tune, fine-tuning from the best of probe: up to trial 3 of 3" in told
    study = optuna.load_study(
        study_name="binary-demo@v1", storage=open_storage(home.settings.studies_uri)
    )
    trials = study.trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 3
    assert [t.user_attrs[STAGE] for t in trials] == ["probe", "probe", "tune"]
    best = max(trials[:2], key=lambda t: t.value)
    shared = {k: v for k, v in best.params.items() if k != "optimizer/backbone_learning_rate"}
    assert shared.items() <= trials[2].params.items()

    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    [parent] = [r for r in runs if r.data.tags[keys.ROLE] == keys.ROLE_STUDY]
    stages = {
        int(r.data.tags[keys.TRIAL_NUMBER]): (r.data.tags[keys.STAGE], r)
        for r in runs
        if r.data.tags[keys.ROLE] == keys.ROLE_TRIAL
    }
    assert [stages[n][0] for n in range(3)] == ["probe", "probe", "tune"]
    assert all(r.data.tags["mlflow.parentRunId"] == parent.info.run_id for _, r in stages.values())
    assert [stages[n][1].data.params["transfer/trainable"] for n in range(3)] == [
        "frozen",
        "frozen",
        "last_block",
    ]
    [finalist] = [r for r in runs if r.data.tags[keys.ROLE] == keys.ROLE_FINALIST]
    study_file = client.download_artifacts(finalist.info.run_id, keys.ARTIFACT_CONFIG)
    space = yaml.safe_load(Path(study_file).read_text())["space"]
    assert space["transfer/trainable"] == ["frozen", "last_block"], "the study's, not a stage's"

    assert home.run("compare", "--study", "binary-demo") == 0
    told = capsys.readouterr().out
    assert "probe" in told
    assert "tune" in told
    assert home.run("status", "--json") == 0
    [status] = json.loads(capsys.readouterr().out)["studies"]
    assert status["complete"] == 3
