"""Trials share models and compiled steps, and none may feel what another one left there."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.data.augmentation import augment
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.models.building import build_model
from breakhis_search.models.heads import set_dropout_rate
from breakhis_search.models.initialisation import initialise
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.weights import ResolvedWeights
from breakhis_search.training.compilation import AugmentedModel
from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import HostFeed
from breakhis_search.training.graphs import GraphCache, TrainingGraph
from breakhis_search.training.phases import CompiledTraining
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import FoldResult, TrainingData
from breakhis_search.training.steps import EpochSteps
from breakhis_search.training.timing import Timer
from breakhis_search.training.trainer import FoldTrainer

RANDOM = ResolvedWeights("small_cnn", "none")
PLAN = TrainingPlan(
    learning_rate=3e-3,
    weight_decay=1e-2,
    label_smoothing=0.1,
    augmentation_strength=0.7,
    sampling_strategy="none",
)
OTHER = TrainingPlan(
    learning_rate=1e-2,
    weight_decay=0.3,
    label_smoothing=0.0,
    augmentation_strength=0.0,
    sampling_strategy="class_weights",
    class_weighting="inverse",
)
RATES = np.array([1e-3, 5e-4], dtype=np.float32)
FOCAL = dataclasses.replace(PLAN, sampling_strategy="focal", focal_gamma=2.0)


def data() -> TrainingData:
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    images = rng.integers(0, 255, (24, 32, 48, 3), dtype=np.uint8)
    train, rest = np.arange(16), np.arange(16, 24)
    rows = TrainingRows(y[train], np.full(16, "a"), np.full(16, "p"))
    return TrainingData(images, train, rows, rest, y[rest], 2)


def new_graph() -> TrainingGraph:
    model = build_model(
        "small_cnn", SpaceRecorder(), input_shape=(32, 48, 3), n_classes=2, weights=RANDOM
    )
    return TrainingGraph(model)


def train(graph: TrainingGraph, plan: TrainingPlan, dropout_rate: float, seed: int) -> FoldResult:
    """What a trial does with a graph."""
    graph.restore()
    set_dropout_rate(graph.core, dropout_rate)
    initialise(graph.core, RANDOM, seed)
    trainer = FoldTrainer(
        graph,
        set_trainable=set_trainable,
        plan=plan,
        config=TrainingConfig(max_epochs=2, head_epochs=0, patience=9, batch_size=8),
        device=Device("cpu", "test", "tensorflow", "float32"),
        timer=Timer(),
    )
    return trainer.fit(data(), epochs=2, seed=seed)


@pytest.fixture(scope="module")
def used() -> TrainingGraph:
    graph = new_graph()
    train(graph, OTHER, 0.6, seed=9)
    return graph


@pytest.mark.parametrize("plan", [PLAN, FOCAL], ids=["cross_entropy", "focal"])
def test_a_used_graph_gives_the_numbers_of_a_fresh_one(used, plan):
    train(used, dataclasses.replace(plan, focal_gamma=0.5), 0.0, seed=4)
    again = train(used, plan, 0.3, seed=3)
    fresh = train(new_graph(), plan, 0.3, seed=3)
    np.testing.assert_allclose(again.logits, fresh.logits, rtol=1e-3, atol=1e-5)
    losses = [[report.loss for report in result.history] for result in (again, fresh)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_nothing_is_traced_again_for_another_trial(used, monkeypatch):
    traced = []
    monkeypatch.setattr(
        "breakhis_search.training.compilation.augment",
        lambda *given, **turns: traced.append(1) or augment(*given, **turns),
    )
    train(used, PLAN, 0.3, seed=1)
    train(used, OTHER, 0.0, seed=2)
    assert traced == []
    train(new_graph(), PLAN, 0.3, seed=1)
    assert traced == [1], "a new graph is traced, and once"


@pytest.mark.parametrize(
    "changed",
    [
        {"weight_decay": 0.5},
        {"label_smoothing": 0.9},
        {"augmentation_strength": 0.0},
        {"learning_rate": 1e-2},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_value_of_a_plan_reaches_the_compiled_step(used, changed):
    usual = train(used, PLAN, 0.3, seed=3)
    other = train(used, dataclasses.replace(PLAN, **changed), 0.3, seed=3)
    assert np.abs(usual.logits - other.logits).max() > 1e-4


def test_the_dropout_rate_reaches_the_compiled_step(used):
    usual, other = train(used, PLAN, 0.0, seed=3), train(used, PLAN, 0.6, seed=3)
    assert usual.history[0].loss != pytest.approx(other.history[0].loss, rel=1e-3)


def test_dropout_keeps_the_mean_and_drops_the_share():
    model = AugmentedModel(new_graph().core, (), augments=True)
    model.dropout_rate.assign(0.25)
    dropped = np.asarray(model._drop(keras.ops.ones((200, 100))))
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    model.dropout_rate.assign(0.0)
    assert (np.asarray(model._drop(keras.ops.ones((20, 10)))) == 1).all()


def test_a_step_is_that_of_keras():
    """Two steps with a decay in a variable against Keras' own loop, loss and optimizer."""
    rows = data()
    targets = np.eye(2, dtype=np.float32)[rows.rows.y]
    weights = np.linspace(0.5, 1.5, len(targets), dtype=np.float32)
    plan = dataclasses.replace(PLAN, augmentation_strength=0.0, label_smoothing=0.0)
    ours, stock = new_graph(), new_graph()
    for graph in (ours, stock):
        initialise(graph.core, RANDOM, seed=1)
        set_dropout_rate(graph.core, 0.0)
    phase = ours.phase("all", is_focal=False, turns=True)
    phase.restart(plan, seed=5, dropout_rate=0.0)
    epoch = EpochSteps(
        np.stack([rows.train] * 2), np.stack([targets] * 2), np.stack([weights] * 2), RATES
    )
    loss = phase.train((rows.images[batch] for batch in epoch.rows), epoch)

    model = AugmentedModel(stock.core, (), augments=True)
    optimizer = keras.optimizers.AdamW(weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer=optimizer, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    model.random.state.assign(np.array([0, 5], dtype=np.uint32))
    losses = []
    for rate in RATES:
        model.optimizer.learning_rate = float(rate)
        model.reset_metrics()
        images = rows.images[rows.train]
        losses.append(model.train_on_batch(images, targets, sample_weight=weights))
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    for a, b in zip(ours.core.get_weights(), stock.core.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_initial_weights_follow_the_seed_alone():
    first, second = new_graph().core, new_graph().core
    initialise(first, RANDOM, seed=1)
    initialise(second, RANDOM, seed=1)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    initialise(second, RANDOM, seed=2)
    assert np.abs(first.get_weights()[0] - second.get_weights()[0]).max() > 0


def test_initial_weights_have_the_spread_they_were_built_with():
    graph = new_graph()
    built = [w.std() for w in graph.core.get_weights()]
    initialise(graph.core, RANDOM, seed=1)
    drawn = [w.std() for w in graph.core.get_weights()]
    np.testing.assert_allclose(drawn, built, rtol=0.35)


def test_pretrained_weights_are_left_alone_and_kernels_do_not_repeat():
    model = new_graph().core
    before = [np.array(v) for v in model.variables]
    initialise(model, ResolvedWeights("small_cnn", "imagenet", sha256="0" * 64), seed=1)
    head = {id(v) for name in ("logits",) for v in model.get_layer(name).variables}
    for variable, value in zip(model.variables, before, strict=True):
        if id(variable) not in head:
            np.testing.assert_array_equal(np.array(variable), value)
    assert np.abs(np.array(model.get_layer("logits").kernel) - before[-2]).max() > 0


def test_restored_and_adopted_graphs_have_the_weights_asked_for():
    graph, other = new_graph(), new_graph()
    built = graph.core.get_weights()
    graph.adopt(other.core)
    np.testing.assert_array_equal(graph.core.get_weights()[0], other.core.get_weights()[0])
    graph.restore()
    np.testing.assert_array_equal(graph.core.get_weights()[0], built[0])


def test_the_cache_lets_the_least_recently_used_graph_go():
    cache = GraphCache(size=2)
    graphs = {name: cache.keep(name, TrainingGraph(keras.Sequential())) for name in "ab"}
    assert cache.find("a") is graphs["a"]
    cache.keep("c", TrainingGraph(keras.Sequential()))
    assert cache.find("b") is None
    assert cache.find("a") is graphs["a"]


@pytest.fixture
def linear(monkeypatch):
    """A model without what normalises by batch, nothing drawn at random; what it is trained on."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 12, 3))
    logits = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image)))
    core = keras.Model(image, logits)
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 256, (8, 8, 12, 3), dtype=np.uint8) for _ in range(3)]
    steps = EpochSteps(
        rows=np.zeros((3, 8), np.int64),
        targets=np.eye(2, dtype=np.float32)[rng.integers(0, 2, (3, 8))],
        weights=rng.uniform(0.5, 2, (3, 8)).astype(np.float32),
        rates=np.array([0.01, 0.02, 0.005], np.float32),
    )
    monkeypatch.setattr("breakhis_search.training.compilation.augment", lambda x, *_, **__: x)
    return core, inputs, steps


def weights_of(core):
    return np.concatenate([w.ravel() for w in core.get_weights()])


def test_a_batch_in_parts_is_learnt_from_as_a_whole(linear):
    core, inputs, steps = linear
    start = core.get_weights()
    plan = dataclasses.replace(PLAN, weight_decay=0.1)
    learnt, losses, answers = [], [], []
    for parts in (1, 2, 4):
        core.set_weights(start)
        phase = TrainingGraph(core).phase("all", is_focal=False, turns=False, parts=parts)
        phase.restart(plan, 0, dropout_rate=0.0)
        losses.append(phase.train(inputs, steps))
        learnt.append(weights_of(core))
        answers.append(phase.predict(inputs))
    assert np.abs(learnt[0] - np.concatenate([w.ravel() for w in start])).max() > 1e-3
    for other in (1, 2):
        np.testing.assert_allclose(learnt[other], learnt[0], atol=2e-5)
        np.testing.assert_allclose(answers[other], answers[0], atol=1e-3)
        assert losses[other] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(("then", "now"), [(1, 2), (2, 1), (2, 4)])
def test_momenta_of_batches_in_parts_go_on_in_others(linear, then, now):
    core, inputs, steps = linear
    start = core.get_weights()
    graph = TrainingGraph(core)
    before, after = (
        CompiledTraining(
            graph.phase("all", is_focal=False, turns=False, parts=parts),
            HostFeed(lambda _: None),
            HostFeed(lambda _: None),
            batch_size=8,
            rng=np.random.default_rng(0),
        )
        for parts in (then, now)
    )
    before._compiled.restart(PLAN, 0, dropout_rate=0.0)
    before._compiled.train(inputs, steps)
    state = before.state()
    before._compiled.train(inputs, steps)
    expected = weights_of(core)
    core.set_weights(start)
    after._compiled.restart(PLAN, 0, dropout_rate=0.0)
    after.go_on(state)
    after._compiled.train(inputs, steps)
    np.testing.assert_allclose(weights_of(core), expected, atol=2e-5)
    assert after._compiled.batches == 6
