"""A training that goes on from a state ends with the numbers of one that never stopped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from breakhis_search.training.results import FoldResult
from breakhis_search.training.state import FoldState, StateMismatchError, put_values
from tests.training.test_trainer import PLAN, accuracy, make_data, make_model, make_trainer

FINE = dataclasses.replace(PLAN, trainable="last_third", backbone_learning_rate=1e-4)


def run(
    architecture: str, plan, start: FoldState | None = None, parts: int = 1, **config: int
) -> tuple[FoldResult, list[FoldState]]:
    trainer = make_trainer(make_model(architecture), plan, **config)
    while trainer.parts < parts:
        assert trainer.take_smaller_parts()
    states: list[FoldState] = []
    result = trainer.fit(
        make_data(), epochs=4, seed=1, score=accuracy, start=start, on_state=states.append
    )
    return result, states


@pytest.fixture(
    scope="module",
    params=[("small_cnn", PLAN), ("mobilenet", FINE)],
    ids=["from_scratch", "fine_tuned"],
)
def whole(request):
    architecture, plan = request.param
    return architecture, plan, *run(architecture, plan)


@pytest.mark.parametrize("done", [1, 2, 4])
def test_what_follows_a_state_is_what_would_have_followed(whole, done):
    architecture, plan, result, states = whole
    again, later = run(architecture, plan, start=states[done - 1])
    assert [r.epoch for r in again.history] == [r.epoch for r in result.history]
    for a, b in zip(again.history, result.history, strict=True):
        assert a.phase == b.phase
        assert a.loss == pytest.approx(b.loss, rel=1e-4, abs=1e-6)
        assert a.learning_rate == b.learning_rate
    assert again.best_epoch == result.best_epoch
    np.testing.assert_allclose(again.logits, result.logits, rtol=1e-3, atol=1e-4)
    assert len(later) == 4 - done, "no epoch is trained twice"


def test_what_was_trained_on_whole_batches_goes_on_in_parts_and_back():
    """Want of memory may halve what a step takes between two epochs, and a new process try again.

    That the numbers are the same where nothing normalises by batch: ``test_graphs.py``.
    """
    for then, now in ((1, 2), (2, 1)):
        _, states = run("small_cnn", PLAN, parts=then)
        again, later = run("small_cnn", PLAN, start=states[1], parts=now)
        assert len(later) == 2, "no epoch is trained twice"
        assert again.history[:2] == states[1].history
        assert again.history[3].loss < again.history[0].loss


def test_a_training_that_had_stopped_early_does_not_go_on():
    result, states = run("small_cnn", PLAN, patience=1)
    assert len(result.history) < 4, "it has to stop early for this test"
    again, later = run("small_cnn", PLAN, start=states[-1], patience=1)
    assert again.history == result.history
    assert later == []
    np.testing.assert_array_equal(again.logits, result.logits)


def test_a_state_of_another_graph_is_refused(whole):
    *_, states = whole
    other = "mobilenet" if whole[0] == "small_cnn" else "small_cnn"
    trainer = make_trainer(make_model(other), FINE if other == "mobilenet" else PLAN)
    seen: list[object] = []
    with pytest.raises(StateMismatchError, match="variable"):
        trainer.fit(make_data(), epochs=4, seed=1, start=states[0], on_start=seen.append)
    assert seen == [], "nothing is told of epochs that do not count"


def test_values_that_do_not_fit_change_nothing():
    model = make_model()
    before = np.array(model.variables[0])
    with pytest.raises(StateMismatchError, match="do not fit"):
        put_values(model.variables, {"0": before + 1})
    np.testing.assert_array_equal(np.array(model.variables[0]), before)
