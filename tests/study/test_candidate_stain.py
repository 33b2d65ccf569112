"""A candidate with stain normalisation sees every fold in the stains of its training images."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.data.stain_cache import NormalizedImages, open_stain_cache
from breakhis_search.study.candidate import (
    Candidate,
    seen_images,
    stain_reference,
    trainer_of,
)
from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import Feeds
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import TrainingData
from breakhis_search.training.timing import Timer

TRAIN, VALIDATION = np.arange(0, 8), np.arange(8, 12)
CPU = Device("cpu", "test", "tensorflow", "float32")
NAMES = [f"sha-{row}" for row in range(12)]


def field(seed):
    rng = np.random.default_rng(seed)
    vectors = np.array([[0.65, 0.70, 0.29], [0.20, 0.90, 0.38]]) + rng.normal(0, 0.05, (2, 3))
    kinds = np.array([[1.1, 0.05], [0.05, 0.7], [0.5, 0.5]])[rng.choice(3, size=(16, 24))]
    amounts = kinds * rng.uniform(0.6, 1.2, (16, 24, 2))
    return (240 * np.exp(-amounts @ vectors)).astype(np.uint8)


@pytest.fixture
def context(tmp_path):
    return SimpleNamespace(
        images=np.stack([field(seed) for seed in range(12)]),
        split=SimpleNamespace(table=pd.DataFrame({"sha256": NAMES})),
        settings=SimpleNamespace(cache_dir=tmp_path),
        config=SimpleNamespace(training=TrainingConfig(max_epochs=1, head_epochs=0, batch_size=4)),
        device=CPU,
        feeds=Feeds(CPU),
    )


def data_of(context) -> TrainingData:
    y = np.arange(12) % 2
    rows = TrainingRows(y[TRAIN], np.full(8, "x"), np.full(8, "g"))
    return TrainingData(context.images, TRAIN, rows, VALIDATION, y[VALIDATION], 2)


def candidate_with(stain: str) -> Candidate:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 24, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    plan = TrainingPlan(
        learning_rate=1e-2,
        weight_decay=0.0,
        label_smoothing=0.0,
        augmentation_strength=0.0,
        sampling_strategy="none",
        stain=stain,
    )
    return Candidate({}, TrainingGraph(model), plan, 0, 4, ())


def expected_images(context):
    table = open_stain_cache(context.images, NAMES, cache_dir=context.settings.cache_dir)
    return NormalizedImages(context.images, table, table.fit_reference(TRAIN))


def test_without_normalization_images_stay_as_they_are(context):
    candidate = candidate_with("none")
    assert seen_images(candidate, context, TRAIN) is context.images
    assert stain_reference(candidate, context, TRAIN) is None


def test_reference_is_fitted_to_the_training_rows(context):
    expected = expected_images(context).reference
    assert stain_reference(candidate_with("macenko"), context, TRAIN) == expected
    assert stain_reference(candidate_with("macenko"), context, VALIDATION) != expected


def test_fold_is_trained_and_scored_on_normalized_images(context):
    candidate = candidate_with("macenko")
    result = trainer_of(candidate, context, timer=Timer()).fit(data_of(context), epochs=1, seed=0)
    seen = expected_images(context)
    expected = predict_logits(candidate.model, seen, VALIDATION, 4)
    np.testing.assert_allclose(result.logits, expected, atol=1e-6)
    raw = predict_logits(candidate.model, context.images, VALIDATION, 4)
    assert np.abs(raw - expected).max() > 1e-3


def test_training_itself_sees_normalized_images(context, monkeypatch):
    steps = []
    candidate = candidate_with("macenko")
    trainer = trainer_of(candidate, context, timer=Timer())
    monkeypatch.setattr(
        "breakhis_search.training.compilation.CompiledPhase.train",
        lambda self, inputs, epoch: steps.extend(np.asarray(batch) for batch in inputs) or 0.0,
    )
    trainer.fit(data_of(context), epochs=1, seed=0)
    seen = np.concatenate(steps[1:])  # the first batch is that of the warm-up
    means = expected_images(context)[TRAIN].mean(axis=(1, 2))
    np.testing.assert_allclose(np.sort(seen.mean(axis=(1, 2)), axis=0), np.sort(means, axis=0))
