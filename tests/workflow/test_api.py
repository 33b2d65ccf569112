"""A study from Python, as in a notebook."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import pytest

from breakhis_search.api import open_study
from breakhis_search.errors import ComparisonError, TrackingError


@pytest.fixture(scope="module")
def study(searched):
    return open_study("binary-demo", home=searched.folder)


def test_leaderboard_has_finalists_and_trials(study) -> None:
    board = study.leaderboard()
    assert isinstance(board, pd.DataFrame)
    assert (board["stage"] == "finalists").sum() == 1
    assert len(board) == 4
    assert study.best.name == f"binary-demo@v1 finalist {study.best.number}"


def test_trial_has_figures_and_tables(study) -> None:
    trial = study.trial(1)
    assert trial.params["model/architecture"] == "small_cnn"
    assert 0 <= trial.metrics["objective/auroc"] <= 1
    assert {"image", "fold", "y_true"} <= set(trial.predictions().columns)
    for level in ("image", "patient"):
        assert isinstance(trial.roc(level), go.Figure)
        assert isinstance(trial.confusion(level), go.Figure)
    assert isinstance(trial.precision_recall(), go.Figure)
    assert isinstance(trial.patients(), go.Figure)
    assert len(trial.learning_curves()) == 2
    assert {"metric", "low", "high", "reason"} <= set(trial.intervals().columns)


def test_two_trials_compare(study) -> None:
    pair = study.compare(study.trial(0), study.trial(1))
    assert 0 < pair.test.p_two_sided <= 1
    assert "binary-demo@v1 trial 0" in pair.verdict


def test_champion_is_the_one_that_predict_uses(study) -> None:
    champion = study.champion()
    assert champion.facts.version == "1"
    assert list(champion.history()["action"]) == ["registered"]


def test_reprs_are_html_that_shows_the_study(study) -> None:
    assert "<table" in study._repr_html_()
    assert "objective/auroc" in study.trial(0)._repr_html_()
    assert "not a medical device" in study.champion()._repr_html_()


def test_what_is_not_there_is_told(study, searched) -> None:
    with pytest.raises(ComparisonError, match="expected one of 0, 1, 2"):
        study.trial(99)
    with pytest.raises(TrackingError, match="expected one of binary-demo@v1"):
        open_study("nothing", home=searched.folder)
