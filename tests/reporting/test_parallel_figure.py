"""Parallel coordinates as plain lines."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from breakhis_search.reporting.parallel_figure import parallel_figure

SPACE = {
    "optimizer/learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "model/architecture": CategoricalDistribution(["mobilenet", "<b>x</b>"]),
    "head/units": CategoricalDistribution([128]),
}


def trial_of(rate: float, architecture: str, value: float) -> optuna.trial.FrozenTrial:
    drawn = {"optimizer/learning_rate": rate, "model/architecture": architecture}
    return optuna.trial.create_trial(
        params={**drawn, "head/units": 128}, distributions=SPACE, value=value
    )


@pytest.fixture
def trials() -> list[optuna.trial.FrozenTrial]:
    return [
        trial_of(1e-4, "mobilenet", 0.5),
        trial_of(1e-3, "<b>x</b>", 0.9),
        trial_of(1e-2, "mobilenet", 0.7),
    ]


def lines_of(figure) -> list[list[float | None]]:
    return [list(t.y) for t in figure.data if t.mode == "lines+markers"]


def test_trials_cross_each_axis_at_their_value_and_the_best_is_drawn_last(trials) -> None:
    figure = parallel_figure(trials, "auroc")
    assert figure is not None
    *_, best = lines_of(figure)
    # architecture (second of two tried), learning rate (middle decade), score (highest)
    assert best == [pytest.approx(1.0), pytest.approx(0.5), pytest.approx(1.0), None]
    assert len(lines_of(figure)) == 3


def test_only_what_varied_has_an_axis_and_names_are_escaped(trials) -> None:
    figure = parallel_figure(trials, "auroc")
    assert figure is not None
    heads = list(figure.layout.xaxis.ticktext)
    assert heads == ["model/<br>architecture", "optimizer/<br>learning rate", "auroc"]
    texts = [text for trace in figure.data if trace.mode == "text" for text in trace.text]
    assert " &lt;b&gt;x&lt;/b&gt;" in texts
    assert "<b>" not in "".join(texts)


def test_browsers_without_webgl_can_draw_it(trials) -> None:
    figure = parallel_figure(trials, "auroc")
    assert figure is not None
    assert {trace.type for trace in figure.data} == {"scatter"}


def test_one_trial_or_nothing_that_varied_is_no_figure(trials) -> None:
    assert parallel_figure(trials[:1], "auroc") is None
    same = [trial_of(1e-3, "mobilenet", score) for score in (0.5, 0.6)]
    assert parallel_figure(same, "auroc") is None


@pytest.mark.parametrize(
    ("space", "drawn", "marks"),
    [
        (IntDistribution(2, 3), (2, 3), ["2", "3"]),
        (IntDistribution(2, 7), (2, 7), ["2", "4", "7"]),
        (IntDistribution(16, 64, step=16), (16, 64), ["16", "48", "64"]),
        (IntDistribution(1, 4096, log=True), (48, 4096), ["48", "100", "1000", "4096"]),
    ],
)
def test_integers_have_integers_as_marks(space, drawn, marks) -> None:
    trials = [
        optuna.trial.create_trial(
            params={"a/layers": n}, distributions={"a/layers": space}, value=n
        )
        for n in drawn
    ]
    figure = parallel_figure(trials, "auroc")
    texts = [[t.strip() for t in trace.text] for trace in figure.data if trace.mode == "text"]
    assert texts[0] == marks
