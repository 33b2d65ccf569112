"""Learning curves draw what was recorded, and mark the best epoch."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation.learning_curves import (
    best_epochs,
    check_history,
    learning_rate_figure,
    loss_figure,
    reading_of,
    score_figure,
)


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "fold": [0, 0, 0, 1, 1, 1],
            "epoch": [0, 1, 2, 0, 1, 2],
            "phase": ["head", "finetune", "finetune"] * 2,
            "loss": [1.0, 0.8, 0.6, 1.1, 0.9, 0.7],
            "val_loss": [1.0, 0.9, 0.95, 1.2, 1.1, 1.0],
            "score": [0.5, 0.7, 0.8, 0.6, 0.9, None],
            "learning_rate": [1e-3, 1e-4, 1e-5] * 2,
        }
    )


def best_marks(figure):
    marks = next(trace for trace in figure.data if trace.name == "best epoch")
    return list(zip(marks.x, marks.y, strict=True))


def test_best_epoch_has_the_highest_score_of_its_fold(history):
    assert best_epochs(history) == {0: 2, 1: 1}


def test_best_epoch_without_scores_has_the_lowest_validation_loss(history):
    assert best_epochs(history.drop(columns="score")) == {0: 1, 1: 2}


def test_nothing_to_judge_by_gives_no_best_epoch(history):
    assert best_epochs(history[["fold", "epoch", "loss"]]) == {}


def test_best_epochs_are_marked_on_both_figures(history):
    assert best_marks(score_figure(history)) == [(2, 0.8), (1, 0.9)]
    assert best_marks(loss_figure(history)) == [(2, 0.95), (1, 1.1)]


def test_epochs_are_drawn_in_order_whatever_the_order_of_rows(history):
    line = loss_figure(history.iloc[::-1]).data[0]
    assert list(line.x) == [0, 1, 2]
    assert list(line.y) == [1.0, 0.8, 0.6]


def test_loss_figure_names_each_fold_once(history):
    shown = [trace.name for trace in loss_figure(history).data if trace.showlegend is not False]
    assert shown == ["fold 0", "fold 1", "best epoch", "training", "validation"]


def test_start_of_a_later_phase_is_marked_once(history):
    annotations = score_figure(history).layout.annotations
    assert [(note.text, note.x) for note in annotations] == [("finetune", 0.5)]


def test_learning_rate_is_drawn_on_a_logarithmic_axis(history):
    assert learning_rate_figure(history).layout.yaxis.type == "log"


def test_learning_rate_of_zero_is_drawn_on_a_linear_axis(history):
    figure = learning_rate_figure(history.assign(learning_rate=[0.0, 1e-3, 1e-3] * 2))
    assert figure.layout.yaxis.type is None


@pytest.mark.parametrize("figure_of", [loss_figure, score_figure, learning_rate_figure])
def test_unrecorded_columns_are_not_drawn(history, figure_of):
    assert figure_of(history[["fold", "epoch"]]) is None
    assert figure_of(pd.DataFrame()) is None


def test_history_without_epochs_is_refused(history):
    with pytest.raises(DataError, match="a history without epoch"):
        check_history(history.drop(columns="epoch"))


def test_epochs_counted_anew_in_a_phase_are_refused(history):
    with pytest.raises(DataError, match="counted on through all phases"):
        check_history(history.assign(epoch=0))


def test_an_epoch_that_was_fixed_beforehand_is_not_called_the_best(history):
    finalist = history.drop(columns="score")
    names = [trace.name for trace in loss_figure(finalist).data]
    assert "last epoch, fixed beforehand" in names
    assert "best epoch" not in names


@pytest.fixture
def finalist(history) -> pd.DataFrame:
    """Nothing is chosen by epoch, so only the last one of each fold is validated."""
    is_last = history["epoch"] == 2
    return history.drop(columns="score").assign(val_loss=history["val_loss"].where(is_last))


def test_legend_of_a_finalist_names_no_curve_that_is_not_there(finalist):
    figure = loss_figure(finalist)
    shown = [trace.name for trace in figure.data if trace.showlegend is not False]
    star = "validation loss after the last epoch, fixed beforehand"
    assert shown == ["fold 0", "fold 1", star]
    assert figure.layout.title.text == "Training loss by epoch"
    marks = figure.data[-1]
    assert list(zip(marks.x, marks.y, strict=True)) == [(2, 0.95), (2, 1.0)]


def test_reading_speaks_only_of_what_is_drawn(history, finalist):
    assert "rises while training loss falls" in reading_of(history)
    assert "the star is their validation loss" in reading_of(finalist)
    assert "rises" not in reading_of(finalist)
    assert reading_of(history[["fold", "epoch", "loss"]]) == "One colour per fold."


def test_a_search_of_one_epoch_is_validated_after_every_epoch(history):
    figure = loss_figure(history[history["epoch"] == 0])
    shown = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert shown == ["fold 0", "fold 1", "best epoch", "training", "validation"]
