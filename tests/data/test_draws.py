"""Sampling strategies of the user's own: what they may give, and how it is checked."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from breakhis_search.data.draws import TrainingRows, check_draw, load_draw
from breakhis_search.data.sampling import effective_prior, epoch_stream, prior_correction
from breakhis_search.errors import ConfigError, TrialFailure

ROWS = TrainingRows(np.repeat([0, 1], [30, 10]), np.array(["x"] * 40), np.array(["a", "b"] * 20))


@pytest.fixture
def strategy(monkeypatch, request):
    """Turns a function into a strategy that can be named."""

    def name(function) -> str:
        module = types.ModuleType(f"own_{abs(hash(request.node.nodeid))}")
        module.draw = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:draw"

    yield name
    load_draw.cache_clear()


def test_epochs_are_full_batches_however_much_is_drawn(strategy):
    for m in (1, 7, 100):
        own = strategy(lambda rows, length, rng, m=m: rng.integers(len(rows.y), size=m))
        stream = epoch_stream(ROWS, own, batch_size=8, rng=np.random.default_rng(0))
        assert [len(next(stream)) for _ in range(3)] == [40, 40, 40]
        load_draw.cache_clear()


def test_an_epoch_is_what_was_drawn(strategy):
    own = strategy(lambda rows, length, rng: np.arange(5, 5 + length // 2, dtype=np.uint8))
    epoch = next(epoch_stream(ROWS, own, batch_size=8, rng=np.random.default_rng(0)))
    assert epoch.tolist() == [*range(5, 25), *range(5, 25)]
    assert epoch.dtype == np.int64


def test_the_prior_is_the_share_of_what_was_drawn(strategy):
    classes = [np.flatnonzero(ROWS.y == c) for c in (0, 1)]

    def three_to_one(rows, length, rng):
        drawn = [rng.choice(classes[0], 12), rng.choice(classes[1], 4)]
        return rng.permutation(np.concatenate(drawn))  # an epoch ends inside a draw

    own = strategy(three_to_one)
    assert effective_prior(ROWS, own, 2) == pytest.approx([0.75, 0.25], abs=0.02)
    assert prior_correction(ROWS, own, 2) == pytest.approx([0, 0], abs=0.1)
    assert effective_prior(ROWS, own, 2).tolist() == effective_prior(ROWS, own, 2).tolist()


@pytest.mark.parametrize(
    ("drawn", "received"),
    [
        ([], r"float64 \[0\]"),
        ([[0, 1]], r"int64 \[1, 2\]"),
        ([0.0, 1.0], r"float64 \[2\]"),
        ([True, False], r"bool \[2\]"),
        ([0, 1000], "positions from 0 to 1000"),
        ([-1, 3], "positions from -1 to 3"),
        (None, r"object \[\]"),
        ("all", r"<U3 \[\]"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_on_fails_the_trial(strategy, drawn, received):
    own = strategy(lambda rows, length, rng: drawn)
    stream = epoch_stream(ROWS, own, batch_size=8, rng=np.random.default_rng(0))
    with pytest.raises(TrialFailure, match=f"drew no epoch; expected .* 0 to 39; .*{received}"):
        next(stream)
    with pytest.raises(ConfigError, match=r"drew no epoch \(of an example: 64 images.*0 to 63"):
        check_draw(own, "binary")


def test_what_raises_fails_the_trial_and_says_why(strategy):
    own = strategy(lambda rows, length, rng: 1 // 0)
    with pytest.raises(TrialFailure, match="cannot draw an epoch; received ZeroDivisionError"):
        load_draw(own)(ROWS, 8, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="cannot draw an epoch.*example.*ZeroDivisionError"):
        check_draw(own, "multiclass")


def test_randomness_from_elsewhere_is_found_before_training(strategy):
    other = np.random.default_rng()
    own = strategy(lambda rows, length, rng: other.permutation(len(rows.y)))
    with pytest.raises(ConfigError, match="other images from the same random state.*use rng"):
        check_draw(own, "binary")


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 8)])
def test_the_example_holds_every_class_and_type(strategy, task, classes):
    seen = []

    def look(rows, length, rng):
        seen.append(rows)
        return rng.permutation(len(rows.y))

    check_draw(strategy(look), task)
    assert len(np.unique(seen[0].y)) == classes
    assert "ductal_carcinoma" in seen[0].types
    assert len(np.unique(seen[0].groups)) == 16


def test_a_strategy_that_does_not_exist_is_told():
    with pytest.raises(ConfigError, match=r"cannot import 'nowhere'.*space.sampling/strategy"):
        check_draw("nowhere:draw", "binary")
