"""The pruner: medians of means over the same folds up to the same epoch."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from breakhis_search.config import StudyConfig
from breakhis_search.study.pruning import FoldMedianPruner, ScoresOfFolds
from breakhis_search.study.strategy import build_pruner

EPOCHS = 4


@pytest.fixture
def study() -> optuna.Study:
    """Three finished trials: an easy fold 0 (0.9) and a hard fold 1 (0.5)."""
    study = optuna.create_study(
        direction="maximize",
        pruner=FoldMedianPruner(epochs_per_fold=EPOCHS, startup_trials=3, warmup_epochs=1),
    )
    for offset in (-0.01, 0.0, 0.01):
        trial = study.ask()
        for epoch in range(EPOCHS):
            trial.report(0.9 + offset, epoch)
        trial.report(0.5 + offset, EPOCHS)  # stopped early in fold 1
        study.tell(trial, 0.7 + offset)
    return study


def test_a_trial_below_the_median_is_pruned(study):
    trial = study.ask()
    trial.report(0.8, 2)
    assert trial.should_prune()


def test_a_trial_above_the_median_goes_on(study):
    trial = study.ask()
    trial.report(0.95, 2)
    assert not trial.should_prune()


def test_an_easy_first_fold_does_not_shield_a_bad_second_one(study):
    trial = study.ask()
    trial.report(0.95, 3)
    trial.report(0.3, EPOCHS + 1)
    assert trial.should_prune()


def test_a_trial_that_leads_over_the_folds_is_not_ended_by_one_of_them(study):
    trial = study.ask()
    trial.report(0.99, 3)
    trial.report(0.45, EPOCHS + 1)
    assert not trial.should_prune()


def test_nothing_is_pruned_in_the_first_epochs_of_a_later_fold(study):
    trial = study.ask()
    trial.report(0.9, 3)
    trial.report(0.1, EPOCHS)
    assert not trial.should_prune()


def test_a_fold_without_a_score_counts_for_nobody(study):
    """Such as a fold whose patients are of one class, when AUROC is asked for."""
    trial = study.ask()
    trial.report(float("nan"), 3)
    trial.report(0.3, EPOCHS + 1)
    assert trial.should_prune()


def test_a_trial_that_stopped_early_still_counts_later_in_its_fold(study):
    trial = study.ask()
    trial.report(0.9, 3)
    trial.report(0.3, EPOCHS + 3)
    assert trial.should_prune()


def test_a_dip_after_a_good_epoch_of_the_fold_is_forgiven(study):
    trial = study.ask()
    trial.report(0.95, 2)
    trial.report(0.2, 3)
    assert not trial.should_prune()


def test_a_trial_whose_score_no_longer_rises_is_held_against_where_others_are_by_now(study):
    trial = study.ask()
    scores = ScoresOfFolds(trial, epochs_per_fold=EPOCHS, every_epoch=True)
    scores.tell(0, 0, 0.8)
    assert not trial.should_prune(), "it warms up"
    scores.tell(0, 1, 0.7)
    assert trial.should_prune()


def test_of_a_trial_that_nobody_prunes_only_what_rises_is_stored(study):
    trial = study.ask()
    scores = ScoresOfFolds(trial, epochs_per_fold=EPOCHS, every_epoch=False)
    for epoch, score in enumerate((0.5, 0.4, 0.6)):
        scores.tell(0, epoch, score)
    scores.tell(1, 0, 0.3)
    assert study.trials[-1].intermediate_values == {0: 0.5, 2: 0.6, EPOCHS: 0.3}


def test_steps_that_optuna_knows_of_are_not_told_again(study):
    trial = study.ask()
    scores = ScoresOfFolds(trial, epochs_per_fold=EPOCHS, every_epoch=True, known=[0])
    scores.tell(0, 0, 0.5)
    scores.tell(0, 1, 0.4)
    assert study.trials[-1].intermediate_values == {1: 0.5}


def test_nothing_is_pruned_while_warming_up(study):
    trial = study.ask()
    trial.report(0.0, 0)
    assert not trial.should_prune()


def test_nothing_is_pruned_before_enough_trials_are_complete():
    pruner = FoldMedianPruner(epochs_per_fold=EPOCHS, startup_trials=3, warmup_epochs=0)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    first = study.ask()
    first.report(0.9, 0)
    study.tell(first, 0.9)
    second = study.ask()
    second.report(0.1, 0)
    assert not second.should_prune()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="must be positive.*epochs_per_fold=0"):
        FoldMedianPruner(epochs_per_fold=0, startup_trials=1, warmup_epochs=0)


HOLDOUT = {
    "name": "one",
    "task": "binary",
    "objective": "auroc",
    "protocol": {"kind": "holdout", "validation_accessions": ["14134"]},
    "training": {"max_epochs": 9, "head_epochs": 0},
    "search": {"pruner": "hyperband"},
}


def test_hyperband_ends_the_worse_trials_of_a_study_of_one_fold():
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=build_pruner(StudyConfig.model_validate(HOLDOUT)),
    )

    def objective(trial: optuna.Trial) -> float:
        quality = trial.suggest_float("quality", 0.0, 1.0)
        for epoch in range(9):
            trial.report(quality, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return quality

    study.optimize(objective, n_trials=40)
    by_state = {
        state: [t.params["quality"] for t in study.get_trials(states=(state,))]
        for state in (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE)
    }
    pruned, complete = by_state.values()
    assert len(pruned) >= 10
    assert np.mean(complete) > np.mean(pruned)
    assert max(pruned) < study.best_value


def test_hyperband_is_refused_where_there_are_several_folds():
    with pytest.raises(ValidationError, match="for protocol.kind: holdout only"):
        StudyConfig.model_validate({**HOLDOUT, "protocol": {"kind": "folds"}})
