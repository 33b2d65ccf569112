"""Sampling strategies: what an epoch holds."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.data.sampling import (
    STRATEGIES,
    TrainingRows,
    class_weights,
    effective_prior,
    epoch_stream,
    prior_correction,
    steps_per_epoch,
)
from breakhis_search.errors import ConfigError


@pytest.fixture
def rows() -> TrainingRows:
    """90 images of class 0 (one patient has 80 of them), 30 of class 1 over two types."""
    groups = ["a"] * 80 + ["b"] * 10 + ["c"] * 20 + ["d"] * 10
    types = ["x"] * 90 + ["y"] * 20 + ["z"] * 10
    return TrainingRows(np.repeat([0, 1], [90, 30]), np.array(types), np.array(groups))


def draw(rows: TrainingRows, strategy: str, epochs: int = 1, seed: int = 0) -> np.ndarray:
    stream = epoch_stream(rows, strategy, batch_size=8, rng=np.random.default_rng(seed))
    return np.concatenate([next(stream) for _ in range(epochs)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_epoch_is_full_batches_of_known_rows(rows, strategy):
    epoch = draw(rows, strategy)
    assert len(epoch) == 8 * steps_per_epoch(rows, strategy, 8)
    assert epoch.min() >= 0
    assert epoch.max() < len(rows.y)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_draws_repeat_by_seed_and_differ_between_seeds(rows, strategy):
    assert draw(rows, strategy).tolist() == draw(rows, strategy).tolist()
    assert draw(rows, strategy).tolist() != draw(rows, strategy, seed=1).tolist()


@pytest.mark.parametrize("strategy", ["none", "class_weights", "focal"])
def test_plain_strategies_show_every_image_once(rows, strategy):
    assert sorted(draw(rows, strategy)) == list(range(120))


def test_oversample_draws_classes_equally_and_every_image(rows):
    epochs = draw(rows, "oversample", epochs=6)
    share = np.bincount(rows.y[epochs]) / len(epochs)
    assert share == pytest.approx([0.5, 0.5], abs=0.05)
    assert set(epochs) == set(range(120))


def test_undersample_draws_as_many_of_each_class_as_the_rarest_has(rows):
    epoch = draw(rows, "undersample")
    assert len(epoch) == 64
    counts = np.bincount(rows.y[epoch])
    assert abs(counts[0] - counts[1]) <= 8


def test_class_balanced_batches_balance_every_batch(rows):
    for batch in draw(rows, "class_balanced_batches", epochs=3).reshape(-1, 8):
        assert np.bincount(rows.y[batch], minlength=2).tolist() == [4, 4]


def test_patient_balanced_gives_types_and_patients_equal_shares(rows):
    epochs = draw(rows, "patient_balanced", epochs=80)
    groups, counts = np.unique(rows.groups[epochs], return_counts=True)
    shares = dict(zip(groups, counts / len(epochs), strict=True))
    # class ½; class 0: patients a, b ¼ each; class 1: types y, z, one patient each
    assert shares == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, abs=0.03)


def test_unknown_strategy_is_an_error(rows):
    with pytest.raises(ConfigError, match="sampling/strategy is not known.*received 'smote'"):
        next(epoch_stream(rows, "smote", batch_size=8, rng=np.random.default_rng(0)))


@pytest.mark.parametrize("weighting", ["inverse", "sqrt_inverse", "effective_number"])
def test_class_weights_have_mean_one_over_images(weighting):
    y = np.repeat([0, 1, 2], [50, 10, 5])
    weights = class_weights(y, 4, weighting)
    assert weights[y].mean() == pytest.approx(1.0, rel=1e-5)
    assert weights[3] == 0
    assert weights[2] > weights[1] > weights[0]


def test_inverse_class_weights_by_hand():
    # n / (K · n_c): 65/(3·50), 65/(3·10), 65/(3·5)
    weights = class_weights(np.repeat([0, 1, 2], [50, 10, 5]), 3, "inverse")
    assert weights.tolist() == pytest.approx([0.43333, 2.16667, 4.33333], rel=1e-4)


def test_unknown_class_weighting_is_an_error():
    with pytest.raises(ConfigError, match="class_weighting is not known"):
        class_weights(np.array([0, 1]), 2, "cubic")


@pytest.fixture
def three_classes() -> TrainingRows:
    """70, 20 and 7 images of three classes (and none of a fourth), of uneven patients and types."""
    y = np.repeat([0, 1, 2], [70, 20, 7])
    groups = np.array([f"p{i}" for i in np.repeat(range(6), [50, 20, 15, 5, 6, 1])])
    types = np.array(["a"] * 50 + ["b"] * 20 + ["c"] * 20 + ["d"] * 7)
    return TrainingRows(y, types, groups)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "class_weights"])
@pytest.mark.parametrize("batch_size", [8, 32])
def test_effective_prior_is_what_a_long_stream_yields(three_classes, strategy, batch_size):
    rng = np.random.default_rng(0)
    stream = epoch_stream(three_classes, strategy, batch_size=batch_size, rng=rng)
    drawn = np.concatenate([next(stream) for _ in range(400)])
    shares = np.bincount(three_classes.y[drawn], minlength=4) / len(drawn)
    assert effective_prior(three_classes, strategy, 4) == pytest.approx(shares, abs=0.01)


@pytest.mark.parametrize("weighting", ["inverse", "sqrt_inverse", "effective_number"])
def test_effective_prior_of_class_weights_is_their_share_of_the_loss(three_classes, weighting):
    weights = class_weights(three_classes.y, 4, weighting)
    mass = np.bincount(three_classes.y, weights=weights[three_classes.y], minlength=4)
    prior = effective_prior(three_classes, "class_weights", 4, weighting)
    assert prior == pytest.approx(mass / mass.sum())


def test_inverse_class_weights_show_a_uniform_prior(three_classes):
    prior = effective_prior(three_classes, "class_weights", 4, "inverse")
    assert prior == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("strategy", ["none", "focal"])
def test_strategies_that_keep_the_natural_prior_need_no_correction(three_classes, strategy):
    assert prior_correction(three_classes, strategy, 4).tolist() == [0.0] * 4


def test_prior_correction_turns_the_effective_prior_into_the_natural_one(three_classes):
    prior = effective_prior(three_classes, "class_weights", 4, "sqrt_inverse")
    corrected = prior * np.exp(prior_correction(three_classes, "class_weights", 4, "sqrt_inverse"))
    assert corrected == pytest.approx([70 / 97, 20 / 97, 7 / 97, 0])


def test_a_class_without_images_is_not_corrected(three_classes):
    correction = prior_correction(three_classes, "patient_balanced", 4)
    assert correction == pytest.approx([*np.log(np.array([70, 20, 7]) * 3 / 97), 0.0])


def test_effective_prior_of_an_unknown_strategy_is_an_error(rows):
    with pytest.raises(ConfigError, match="sampling/strategy is not known.*received 'smote'"):
        effective_prior(rows, "smote", 2)


def test_effective_prior_of_class_weights_needs_their_weighting(rows):
    with pytest.raises(ConfigError, match="class_weighting is not known"):
        effective_prior(rows, "class_weights", 2)
