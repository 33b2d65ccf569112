"""A frozen backbone is asked once; its head trains on what it said, to the same answers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.models.space import ARCHITECTURE
from breakhis_search.models.trainability import set_trainable
from breakhis_search.study.candidate import Candidate, frozen_features, trainer_of
from breakhis_search.study.progress import SilentObserver
from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import Feeds
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.head_batch import HeadBatch
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import TrainingData
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff, run_alone, run_together

CPU = Device("cpu", "test", "tensorflow", "float32")
N = 24
TRAIN, VALIDATION = np.arange(0, 16), np.arange(16, N)
PLAN = TrainingPlan(
    learning_rate=3e-2,
    weight_decay=1e-3,
    label_smoothing=0.05,
    augmentation_strength=0.5,
    sampling_strategy="none",
    trainable="frozen",
)


@pytest.fixture
def context(tmp_path):
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 90, (N, 16, 24, 3))
    bright = (np.arange(N) % 2)[:, None, None, None] * np.array([120, 10, 60])
    return SimpleNamespace(
        images=(dark + bright).astype(np.uint8),
        split=SimpleNamespace(table=pd.DataFrame({"sha256": [f"sha-{row}" for row in range(N)]})),
        settings=SimpleNamespace(cache_dir=tmp_path),
        config=SimpleNamespace(training=TrainingConfig(max_epochs=4, head_epochs=2, batch_size=8)),
        device=CPU,
        weights={"mobilenet": SimpleNamespace(sha256="0" * 64)},
        input_shape=(16, 24, 3),
        observer=SilentObserver(),
        features={},
        feeds=Feeds(CPU),
    )


def candidate_of(plan: TrainingPlan = PLAN, *, units: int = 6, seed: int = 0) -> Candidate:
    """A model with the layer names of a transfer model and a backbone of one convolution."""
    keras.utils.set_random_seed(7)  # the backbone is pretrained: the same in every candidate
    image = keras.Input((16, 24, 3))
    backbone = keras.Sequential(
        [keras.Input((16, 24, 3)), keras.layers.Conv2D(5, 3, activation="relu")], name="backbone"
    )
    scaled = keras.layers.Rescaling(1 / 25)(image)
    pool = keras.layers.GlobalAveragePooling2D(name="mobilenet_features")
    features = pool(backbone(scaled))
    keras.utils.set_random_seed(seed)
    if units:
        features = keras.layers.Dense(units, activation="relu", name="head_dense")(features)
    features = keras.layers.Dropout(0.2, name="head_dropout")(features)
    logits = keras.layers.Dense(2, name="logits")(features)
    graph = TrainingGraph(keras.Model(image, logits))
    return Candidate({ARCHITECTURE: "mobilenet"}, graph, plan, seed, 8, ())


def data_of(context) -> TrainingData:
    y = np.arange(N) % 2
    rows = TrainingRows(y[TRAIN], np.full(16, "x"), np.full(16, "g"))
    return TrainingData(context.images, TRAIN, rows, VALIDATION, y[VALIDATION], 2)


def score(y, logits):
    return float((logits.argmax(axis=1) == y).mean())


@pytest.mark.parametrize("units", [0, 6])
def test_the_model_answers_what_its_head_answered_on_features(context, units):
    candidate = candidate_of(units=units)
    result = trainer_of(candidate, context, timer=Timer()).fit(
        data_of(context), epochs=4, seed=0, score=score
    )
    expected = predict_logits(candidate.model, context.images, VALIDATION, 8)
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)


def test_the_head_learns(context):
    plan = replace(PLAN, augmentation_strength=0.0, learning_rate=0.3)
    result = trainer_of(candidate_of(plan, units=0), context, timer=Timer()).fit(
        data_of(context), epochs=60, seed=0
    )
    assert result.history[-1].loss < 0.8 * result.history[0].loss
    assert score(data_of(context).validation_y, result.logits) == 1.0


def test_the_backbone_is_asked_once_for_all_trials(context, monkeypatch):
    asked = []
    computed = SilentObserver.features_computed
    monkeypatch.setattr(
        SilentObserver,
        "features_computed",
        lambda self, *args: asked.append(args) or computed(self, *args),
    )
    for seed in (0, 1):
        trainer = trainer_of(candidate_of(seed=seed), context, timer=Timer())
        for _ in range(2):
            trainer.fit(data_of(context), epochs=1, seed=0)
    assert [done for _, done, _ in asked] == [8, 16, 24]


PLANS = [
    PLAN,
    replace(PLAN, sampling_strategy="oversample", learning_rate=1e-2),
    replace(PLAN, sampling_strategy="focal", focal_gamma=2.0, augmentation_strength=0.0),
    replace(PLAN, sampling_strategy="class_weights", class_weighting="inverse", weight_decay=0.1),
]


def fits(context, plans, *, patience: int = 9):
    """The trainings of heads of two sizes, several of them on one and the same model."""
    config = TrainingConfig(max_epochs=6, head_epochs=2, batch_size=8, patience=patience)
    context.config = SimpleNamespace(training=config)
    models = {units: candidate_of(units=units) for units in (0, 6)}
    for seed, plan in enumerate(plans):
        candidate = replace(models[6 * (seed % 2)], plan=plan, seed=seed)
        trainer = trainer_of(candidate, context, timer=Timer())
        yield trainer.training(data_of(context), epochs=6, seed=seed, score=score)


@pytest.mark.parametrize("patience", [9, 1], ids=["to the end", "stopping early"])
def test_a_head_learns_the_same_in_company_as_alone(context, patience):
    plans = PLANS * 2
    alone = [run_alone(training) for training in fits(context, plans, patience=patience)]
    together = run_together(list(fits(context, plans, patience=patience)))
    for one, other in zip(alone, together, strict=True):
        assert one.history == other.history
        assert one.best_epoch == other.best_epoch
        np.testing.assert_array_equal(one.logits, other.logits)
        for value, same in zip(one.kept.values, other.kept.values, strict=True):
            np.testing.assert_array_equal(value, same)


def test_heads_of_one_size_take_one_step(context, monkeypatch):
    sizes = []
    step = HeadBatch.step
    monkeypatch.setattr(
        HeadBatch, "step", lambda self, *args: sizes.append(len(self)) or step(self, *args)
    )
    run_together(list(fits(context, PLANS[:1] * 6)))
    assert set(sizes) == {3}, "six heads of two sizes"
    assert len(sizes) == 2 * 6 * 2, "epochs × steps of either size"


def test_what_ends_one_training_is_told_to_the_others(context):
    told = []

    def listening():
        try:
            yield from next(fits(context, PLANS[:1]))
        except CutOff:
            told.append("cut off")
            raise

    def breaking():
        yield from ()
        raise ZeroDivisionError

    def failing():
        training = next(fits(context, PLANS[:1]))
        yield next(training)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_together([listening(), failing(), listening()])
    assert told == ["cut off"] * 2
    with pytest.raises(ZeroDivisionError):
        run_together([listening(), breaking(), listening()])
    assert told == ["cut off"] * 3, "the last one had not begun"


def test_the_model_becomes_the_one_that_was_kept(context):
    candidate, other = candidate_of(units=6), candidate_of(units=6, seed=5)
    other = replace(other, graph=candidate.graph)
    trainers = [trainer_of(c, context, timer=Timer()) for c in (candidate, other)]
    results = run_together(
        [
            trainer.training(data_of(context), epochs=3, seed=seed, score=score)
            for seed, trainer in enumerate(trainers)
        ]
    )
    for trainer, result in zip(trainers, results, strict=True):
        trainer.bring_back(result)
        answers = predict_logits(candidate.model, context.images, VALIDATION, 8)
        np.testing.assert_allclose(result.logits, answers, atol=1e-5)


def test_nothing_is_compiled_for_a_frozen_backbone(context):
    timer = Timer()
    trainer_of(candidate_of(), context, timer=timer).fit(data_of(context), epochs=2, seed=0)
    assert "trace" not in timer.seconds
    assert "features" in timer.seconds


def test_fine_tuning_begins_with_the_head_that_features_trained(context):
    plan = replace(PLAN, trainable="whole", backbone_learning_rate=1e-4)
    candidate = candidate_of(plan)
    timer = Timer()
    result = trainer_of(candidate, context, timer=timer).fit(data_of(context), epochs=3, seed=0)
    assert [report.phase for report in result.history] == ["head", "head", "fine_tune"]
    assert set(timer.seconds) >= {"features", "trace"}
    expected = predict_logits(candidate.model, context.images, VALIDATION, 8)
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)


def test_the_same_seed_gives_the_same_head_whatever_is_stored(context, tmp_path):
    first = trainer_of(candidate_of(), context, timer=Timer()).fit(
        data_of(context), epochs=3, seed=5
    )
    other = SimpleNamespace(
        **{**vars(context), "settings": SimpleNamespace(cache_dir=tmp_path / "other")}
    )
    again = trainer_of(candidate_of(), other, timer=Timer()).fit(data_of(context), epochs=3, seed=5)
    np.testing.assert_array_equal(first.logits, again.logits)


@pytest.mark.parametrize("reason", ["no backbone", "random weights", "not wanted"])
def test_without_lasting_features_images_are_trained_on(context, reason):
    plan = PLAN
    if reason == "no backbone":
        plan = replace(PLAN, trainable=None)
    elif reason == "random weights":
        context.weights = {"mobilenet": SimpleNamespace(sha256=None)}
    else:
        context.config.training = TrainingConfig(max_epochs=4, head_epochs=2, features=None)
    assert frozen_features(candidate_of(plan), context) is None


def test_backbone_of_the_stand_in_can_be_frozen_like_a_real_one():
    model = candidate_of().model
    set_trainable(model, "head")
    assert {w.path.split("/")[0] for w in model.trainable_weights} == {"head_dense", "logits"}
