"""Fine-tuning on what the part of a backbone that does not learn has said once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.models.building import build_model
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.space import ARCHITECTURE
from breakhis_search.models.weights import resolve_weights
from breakhis_search.study.candidate import Candidate, trainer_of
from breakhis_search.study.progress import SilentObserver
from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import Feeds
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import FoldResult, TrainingData
from breakhis_search.training.timing import Timer

CPU = Device("cpu", "test", "tensorflow", "float32")
TRAIN, VALIDATION = np.arange(16), np.arange(16, 24)
Y = np.arange(24) % 2
PLAN = TrainingPlan(
    learning_rate=1e-2,
    weight_decay=1e-3,
    label_smoothing=0.1,
    augmentation_strength=0.5,
    sampling_strategy="none",
    trainable="last_block",
    backbone_learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def weights(real_weights):
    return resolve_weights("mobilenet", source="imagenet", weights_dir=real_weights)


@pytest.fixture(scope="module")
def graph(weights) -> TrainingGraph:
    shape = (32, 48, 3)
    model = build_model(
        "mobilenet", SpaceRecorder(), input_shape=shape, n_classes=2, weights=weights
    )
    return TrainingGraph(model)


@pytest.fixture
def context(tmp_path, weights):
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 90, (24, 32, 48, 3))
    bright = Y[:, None, None, None] * np.array([120, 10, 60])
    return SimpleNamespace(
        images=(dark + bright).astype(np.uint8),
        split=SimpleNamespace(table=pd.DataFrame({"sha256": [f"sha-{row}" for row in range(24)]})),
        settings=SimpleNamespace(cache_dir=tmp_path),
        config=SimpleNamespace(training=TrainingConfig(max_epochs=4, head_epochs=1, batch_size=8)),
        device=CPU,
        weights={"mobilenet": weights},
        input_shape=(32, 48, 3),
        observer=Progress(),
        features={},
        feeds=Feeds(CPU),
    )


class Progress(SilentObserver):
    """Counts how often a backbone is asked about how many images."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.whose: list[str] = []

    def features_computed(self, backbone: str, done: int, total: int) -> None:
        if done == total:
            self.asked.append(total)
            self.whose.append(backbone)


def fit(context, graph: TrainingGraph, plan: TrainingPlan = PLAN) -> FoldResult:
    """What a trial does, from the weights that the graph was built with."""
    graph.restore()
    candidate = Candidate({ARCHITECTURE: "mobilenet"}, graph, plan, 0, 8, ())
    rows = TrainingRows(Y[TRAIN], np.full(16, "x"), np.full(16, "g"))
    data = TrainingData(context.images, TRAIN, rows, VALIDATION, Y[VALIDATION], 2)
    return trainer_of(candidate, context, timer=Timer()).fit(data, epochs=3, seed=0)


def test_the_model_answers_what_its_tail_answered_on_activations(context, graph):
    result = fit(context, graph)
    assert [report.phase for report in result.history] == ["head", "fine_tune", "fine_tune"]
    answers = predict_logits(graph.core, context.images, VALIDATION, 8)
    np.testing.assert_allclose(result.logits, answers, atol=1e-4)


def test_the_trunk_is_asked_once_for_all_trials(context, graph):
    fit(context, graph)
    fit(context, graph, replace(PLAN, backbone_learning_rate=1e-4, augmentation_strength=0.0))
    assert context.observer.asked == [24, 24], "once for the head's features, once for the trunk"
    whole, trunk = context.observer.whose
    assert whole == "mobilenet"
    assert trunk.startswith("mobilenet up to layer conv_"), "told apart from the whole backbone"


def test_what_learns_changes_and_nothing_else(context, graph):
    before = {v.path: np.array(v) for v in graph.core.variables}
    graph.restore()
    fit(context, graph)
    changed = {
        v.path for v in graph.core.weights if not np.array_equal(before[v.path], np.array(v))
    }
    tail = ("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13", "head_dense", "logits")
    assert changed
    assert all(any(name in path for name in tail) for path in changed)


def test_too_much_to_store_is_trained_on_images(context, graph, monkeypatch):
    monkeypatch.setattr("breakhis_search.study.features.TRUNK_MAX_BYTES", 1000)
    result = fit(context, graph)
    assert context.observer.asked == [24], "the head's features only"
    answers = predict_logits(graph.core, context.images, VALIDATION, 8)
    np.testing.assert_allclose(result.logits, answers, atol=1e-4)
