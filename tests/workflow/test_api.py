"""A study from Python, as in a notebook."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import pytest

from breakhis_search.api import Study, open_study
from breakhis_search.comparison.leaderboard import only_finalists
from breakhis_search.errors import ComparisonError, StudyError, TrackingError
from breakhis_search.workflow import comparison


@pytest.fixture(scope="module")
def study(searched):
    return open_study("binary-demo", home=searched.folder)


def test_leaderboard_has_finalists_and_trials(study) -> None:
    board = study.leaderboard()
    assert isinstance(board, pd.DataFrame)
    assert (board["stage"] == "finalists").sum() == 1
    assert len(board) == 4
    assert study.best.name == f"binary-demo@v1 finalist {study.best.number}"


def test_leaderboard_leaves_out_finalists_of_before(study, monkeypatch) -> None:
    """A study that goes on finds better ones; ``compare`` tells the same."""
    before = study.leaderboard()
    monkeypatch.setattr(comparison, "only_finalists", lambda board, _: only_finalists(board, []))
    board = study.leaderboard()
    assert len(board) == len(before) - 1
    assert board["rank"].isna().all()
    assert list(board.columns) == list(before.columns)
    assert study.best.name.startswith("binary-demo@v1 trial ")


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
    assert study.best.learning_curves(), "of a finalist: several seeds"
    assert {"metric", "low", "high", "reason"} <= set(trial.intervals().columns)


@pytest.mark.parametrize("figure", ["roc", "precision_recall", "confusion"])
def test_a_level_without_curves_is_an_error_and_no_other_level(study, figure) -> None:
    with pytest.raises(StudyError, match="no curves of that level.*image or patient.*'images'"):
        getattr(study.trial(1), figure)("images")


def test_finalist_is_calibrated_and_a_trial_is_not(study) -> None:
    dots = study.selected.calibration()
    assert set(dots["state"]) == {"before", "after"}
    assert dots["claimed"].between(0, 1).all()
    with pytest.raises(ComparisonError, match="trial 0 has no .*only finalists are calibrated"):
        study.trial(0).calibration()


def test_two_trials_compare(study) -> None:
    pair = study.compare(study.trial(0), study.trial(1))
    assert 0 < pair.test.p_two_sided <= 1
    assert "binary-demo@v1 trial 0" in pair.verdict


def test_search_and_selection_are_told(study) -> None:
    assert isinstance(study.search_history(), go.Figure)
    assert list(study.importances().columns) == ["hyperparameter", "importance"]
    table = study.selection()
    assert table["selected"].sum() == 1
    [number] = table.loc[table["selected"], "trial"]
    assert study.selected.name == f"binary-demo@v1 finalist {number}"


def test_without_finalists_nothing_is_selected(study, monkeypatch) -> None:
    none_yet = pd.DataFrame({"trial": [], "run_id": []})
    monkeypatch.setattr(Study, "selection", lambda self: none_yet)
    with pytest.raises(ComparisonError, match="no finalist yet; to do: run the study"):
        study.selected  # noqa: B018 (it is asked for its error)


def test_errors_are_tables(study, monkeypatch) -> None:
    trial = study.trial(0)
    cells = trial.by_magnification()
    assert {"type", "magnification", "images", "patients", "image_accuracy"} <= set(cells.columns)
    columns = list(trial.mistakes().columns)
    assert columns[:3] == ["image", "accession", "magnification"]
    monkeypatch.setattr("breakhis_search.api.most_confident_mistakes", lambda table: [])
    assert list(trial.mistakes().columns) == columns, "whoever makes no mistake has the same table"


def test_decisions_are_those_of_the_champion(study) -> None:
    decisions = study.decisions()
    pd.testing.assert_frame_equal(decisions, study.champion().history())
    assert list(decisions["version"]) == ["1"]


def test_champion_is_the_one_that_predict_uses(study) -> None:
    champion = study.champion()
    assert champion.facts.version == "1"
    assert list(champion.history()["action"]) == ["registered"]


def test_reprs_are_html_that_shows_the_study(study) -> None:
    assert "<table" in study._repr_html_()
    assert "objective/auroc" in study.trial(0)._repr_html_()
    assert "not a medical device" in study.champion()._repr_html_()
    assert "trial 0" in study.compare(study.trial(0), study.trial(1))._repr_html_()


def test_what_is_not_there_is_told(study, searched) -> None:
    with pytest.raises(ComparisonError, match="expected one of 0, 1, 2"):
        study.trial(99)
    with pytest.raises(TrackingError, match="expected one of binary-demo@v1"):
        open_study("nothing", home=searched.folder)
