"""Trials of a frozen backbone are run side by side, and each is a trial and a run of its own."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

from breakhis_search.study.storage import open_storage
from breakhis_search.tracking import keys

TRIALS = 6
FROZEN = [
    "--set=space.model/architecture=[mobilenet, small_cnn]",
    "--set=space.transfer/trainable=frozen",
    "--set=training.max_epochs=3",
    "--set=search.pruner=none",
    "--set=finalists={count: 1, seeds: 1}",
]


pytestmark = pytest.mark.usefixtures("registers_quickly")


def study_of(home):
    import optuna

    return optuna.load_study(
        study_name="binary-demo@v1", storage=open_storage(home.settings.studies_uri)
    )


def runs_of(home):
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    condition = f"tags.`{keys.ROLE}` = 'trial'"
    return client.search_runs([experiment.experiment_id], condition)


def test_a_batch_is_interrupted_as_one_and_goes_on(home, real_weights, monkeypatch):
    weights = f"--weights-dir={real_weights}"
    last = 0

    def stop(_observer, *, number, **_rest):
        nonlocal last
        if number < last:  # an earlier trial has its turn again: they go side by side
            raise KeyboardInterrupt
        last = number

    with monkeypatch.context() as patch:
        name = "breakhis_search.cli.progress.TerminalObserver.epoch_finished"
        patch.setattr(name, stop)
        assert home.search("binary", TRIALS, *FROZEN, weights) == 130
    states = [t.state for t in study_of(home).trials]
    assert states.count(TrialState.RUNNING) > 1
    assert TrialState.FAIL not in states

    assert home.search("binary", TRIALS, *FROZEN, weights) == 0
    trials = study_of(home).trials
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == len(trials) == TRIALS
    assert {t.params["model/architecture"] for t in complete} == {"mobilenet", "small_cnn"}
    runs = {int(r.data.tags[keys.TRIAL_NUMBER]): r for r in runs_of(home)}
    assert not [r for r in runs.values() if r.info.status == "RUNNING"]
    for trial in complete:
        run = runs[trial.number]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["objective/auroc"] == pytest.approx(trial.value)
        assert run.data.params["model/architecture"] == trial.params["model/architecture"]
        history = home.client.get_metric_history(run.info.run_id, "epoch/fold_1/loss")
        assert [m.step for m in history] == [0, 1, 2]
