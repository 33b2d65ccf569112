"""Figures of a search show what can be compared, and nothing else, on one axis."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.reporting.search_figures import history_figure, slice_figures
from breakhis_search.study.budget import REASON


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    for number, trial in enumerate(trials):
        trial.number = number
    return list(trials)


@pytest.fixture
def trials() -> list[FrozenTrial]:
    """Two with a score, one pruned though an epoch of its fold was perfect, one that failed."""
    make = optuna.trial.create_trial
    return numbered(
        make(value=0.7),
        make(state=TrialState.PRUNED, intermediate_values={3: 1.0}),
        make(state=TrialState.FAIL, user_attrs={REASON: "the loss is <nan>"}),
        make(value=0.8),
    )


def marks(figure, name: str):
    [found] = [trace for trace in figure.data if trace.name.startswith(name)]
    return found


def test_pruned_trial_is_at_the_foot_whatever_an_epoch_of_its_fold_came_to(trials):
    figure = history_figure(trials, "AUROC")
    assert figure is not None
    pruned = marks(figure, "pruned")
    assert (list(pruned.x), list(pruned.y), pruned.yaxis) == ([1], [0.0], "y2")
    assert pruned.name == "pruned (no score, at the foot), 1"
    assert "%{y" not in pruned.hovertemplate, "it has no value to show"
    on_scores = [y for trace in figure.data if trace.yaxis != "y2" for y in trace.y]
    assert set(on_scores) == {0.7, 0.8}, "the axis of scores holds scores alone"


def test_foot_is_no_part_of_the_axis_of_scores(trials):
    layout = history_figure(trials, "AUROC").layout
    assert layout.yaxis.range is None, "it fits the scores"
    assert tuple(layout.yaxis2.range) == (0, 1)
    assert layout.yaxis2.visible is False


def test_marks_at_the_foot_tell_why_in_text_that_is_safe(trials):
    figure = history_figure(trials, "AUROC", {1: "fold 1, epoch 2: below the median"})
    assert list(marks(figure, "pruned").customdata) == ["<br>fold 1, epoch 2: below the median"]
    assert list(marks(figure, "failed").customdata) == ["<br>the loss is &lt;nan&gt;"]


def test_reason_of_an_interruption_is_not_told_as_that_of_pruning(trials):
    trials[1].set_user_attr(REASON, "KeyboardInterrupt")
    assert list(marks(history_figure(trials, "AUROC"), "pruned").customdata) == [""]


def test_whole_numbers_have_whole_marks():
    space = {"small_cnn/blocks": IntDistribution(2, 5), "head/rate": FloatDistribution(0, 1)}
    drawn = [
        optuna.trial.create_trial(
            params={"small_cnn/blocks": blocks, "head/rate": 0.5},
            distributions=space,
            value=0.5,
        )
        for blocks in (2, 3)
    ]
    blocks, rate = slice_figures(drawn, list(space), "AUROC")
    assert (blocks.layout.xaxis.dtick, blocks.layout.xaxis.tickformat) == (1, "d")
    assert rate.layout.xaxis.dtick is None


def test_choices_stand_as_they_were_declared_not_as_trials_came_upon_them():
    space = {"small_cnn/filters": CategoricalDistribution([16, 24])}
    drawn = [
        optuna.trial.create_trial(value=0.5, params={"small_cnn/filters": n}, distributions=space)
        for n in (24, 16)
    ]
    [figure] = slice_figures(drawn, list(space), "AUROC")
    assert list(figure.layout.xaxis.categoryarray) == ["16", "24"]
