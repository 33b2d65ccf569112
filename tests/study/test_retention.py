"""Whose model is kept."""

from __future__ import annotations

import optuna
import pytest

from breakhis_search.study.retention import is_among_the_best


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.7, 0.9):
        study.add_trial(optuna.trial.create_trial(value=value))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    return study


@pytest.mark.parametrize(
    ("value", "count", "kept"),
    [(0.8, 1, False), (0.8, 2, True), (0.95, 1, True), (0.1, 3, False), (0.1, 4, True)],
)
def test_a_score_counts_against_the_complete_trials(study, value, count, kept):
    assert is_among_the_best(study, value, count) is kept


def test_no_model_is_kept_where_none_is_wanted(study):
    assert not is_among_the_best(study, 1.0, 0)


def test_the_first_trial_of_a_study_is_its_best():
    assert is_among_the_best(optuna.create_study(direction="maximize"), 0.1, 1)
