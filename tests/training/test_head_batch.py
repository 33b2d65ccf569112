"""Heads trained together, held against the same heads trained one by one with Keras."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.training.head_batch import HeadBatch, HeadSettings

D, K, B = 12, 3, 8


def batches(heads: int, steps: int, seed: int = 0):
    """Features, one-hot targets and weights of every step, [steps, heads, B, …]."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(steps, heads, B, D)).astype(np.float32)
    targets = np.eye(K, dtype=np.float32)[rng.integers(0, K, size=(steps, heads, B))]
    weights = rng.uniform(0.5, 2.0, size=(steps, heads, B)).astype(np.float32)
    return features, targets, weights


def train_with_keras(settings, units, start, data, rate):
    """The weights and losses of one head after the same steps in Keras."""
    import keras

    hidden = [keras.layers.Dense(units, activation="relu")] if units else []
    model = keras.Sequential([keras.Input((D,)), *hidden, keras.layers.Dense(K)])
    model.set_weights(start)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    options = {"from_logits": True, "label_smoothing": settings.label_smoothing}
    loss = (
        keras.losses.CategoricalCrossentropy(**options)
        if settings.focal_gamma is None
        else keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=settings.focal_gamma, **options
        )
    )
    model.compile(optimizer=optimizer, loss=loss)
    losses = [
        float(model.train_on_batch(features, targets, sample_weight=weights))
        for features, targets, weights in zip(*data, strict=True)
    ]
    return model.get_weights(), losses


@pytest.mark.parametrize("units", [0, 5])
def test_heads_of_a_batch_become_what_keras_makes_of_each(units):
    settings = [
        HeadSettings(0.0, 0.05, 0.0),
        HeadSettings(0.0, 0.0, 0.1),
        HeadSettings(0.0, 0.01, 0.05, focal_gamma=2.0),
    ]
    rates = np.array([1e-2, 3e-3, 2e-2], dtype=np.float32)
    batch = HeadBatch(settings, features=D, units=units, classes=K, seeds=[1, 2, 3])
    starts = [batch.weights_of(head) for head in range(3)]
    data = batches(3, steps=6)
    losses = [batch.step(*arrays, rates) for arrays in zip(*data, strict=True)]
    for head in range(3):
        own = tuple(array[:, head] for array in data)
        weights, expected = train_with_keras(
            settings[head], units, starts[head], own, float(rates[head])
        )
        np.testing.assert_allclose([loss[head] for loss in losses], expected, rtol=2e-4)
        for ours, theirs in zip(batch.weights_of(head), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_head_does_not_depend_on_its_company():
    settings = [HeadSettings(0.4, 0.01, 0.0), HeadSettings(0.2, 0.0, 0.1)]
    both = HeadBatch(settings, features=D, units=4, classes=K, seeds=[7, 8])
    alone = HeadBatch(settings[1:], features=D, units=4, classes=K, seeds=[8])
    rates = np.array([1e-2, 1e-2], dtype=np.float32)
    for features, targets, weights in zip(*batches(2, steps=3), strict=True):
        both.step(features, targets, weights, rates)
        alone.step(features[1:], targets[1:], weights[1:], rates[1:])
    for ours, theirs in zip(both.weights_of(1), alone.weights_of(0), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_head_with_rate_zero_rests():
    settings = [HeadSettings(0.0, 0.1, 0.0)] * 2
    batch = HeadBatch(settings, features=D, units=4, classes=K, seeds=[1, 2])
    before = batch.weights_of(1)
    features, targets, weights = (array[0] for array in batches(2, steps=1))
    batch.step(features, targets, weights, np.array([1e-2, 0.0], dtype=np.float32))
    for ours, theirs in zip(batch.weights_of(1), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(batch.weights_of(0)[0], before[0])


def test_dropout_keeps_the_mean_and_is_off_in_inference():
    settings = [HeadSettings(0.5, 0.0, 0.0)]
    batch = HeadBatch(settings, features=D, units=0, classes=K, seeds=[3])
    features = np.ones((4, D), dtype=np.float32)
    np.testing.assert_array_equal(batch.logits(features), batch.logits(features))
    mask = batch._dropout_mask((1, 200, 500), np.array([True]))
    assert set(np.unique(mask)) == {0.0, 2.0}
    assert mask.mean() == pytest.approx(1.0, abs=0.02)


def test_weights_can_be_given_back():
    batch = HeadBatch([HeadSettings(0.0, 0.0, 0.0)], features=D, units=4, classes=K, seeds=[3])
    kept = batch.weights_of(0)
    features, targets, weights = (array[0] for array in batches(1, steps=1))
    batch.step(features, targets, weights, np.array([0.1], dtype=np.float32))
    batch.set_weights(0, kept)
    for ours, theirs in zip(batch.weights_of(0), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
