"""The same training loop on the JAX backend of Keras, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="no jax: pip install '.[dev]'"
)

SCRIPT = """
import dataclasses, json, os, pathlib, sys
import keras
import numpy as np
from breakhis_search.config import TrainingConfig
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.models.building import build_model
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.weights import ResolvedWeights
from breakhis_search.tracking.model_parts import put_together
from breakhis_search.tracking.model_writer import ModelWriter
from breakhis_search.tracking.models import KERAS_FILE
from breakhis_search.training.devices import peak_memory_mb, prepare_device, reset_peak_memory
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.results import TrainingData
from breakhis_search.training.timing import Timer
from breakhis_search.training.trainer import FoldTrainer

compilations = pathlib.Path(sys.argv[1])
device = prepare_device("cpu", deterministic=True, compilations=compilations)
reset_peak_memory(device)
n, rng = 48, np.random.default_rng(0)
y = np.arange(n) % 2
images = rng.integers(0, 60, (n, 32, 48, 3), dtype=np.uint8)
images[y == 0, :, :, 0] += 150
images[y == 1, :, :, 2] += 150
train, rest = np.arange(32), np.arange(32, n)
rows = TrainingRows(y[train], np.where(y[train] == 0, "a", "b"), np.array(["p"] * len(train)))
data = TrainingData(images, train, rows, rest, y[rest], 2)
plan = TrainingPlan(
    learning_rate=3e-3,
    weight_decay=1e-4,
    label_smoothing=0.05,
    augmentation_strength=0.5,
    sampling_strategy="class_weights",
    class_weighting="inverse",
)
keras.utils.set_random_seed(5)
model = build_model(
    "small_cnn",
    SpaceRecorder(),
    input_shape=(32, 48, 3),
    n_classes=2,
    weights=ResolvedWeights("small_cnn", "none"),
)
trainer = FoldTrainer(
    TrainingGraph(model),
    set_trainable=set_trainable,
    plan=plan,
    config=TrainingConfig(max_epochs=4, head_epochs=0, patience=9, batch_size=16),
    device=device,
    timer=Timer(),
)
accuracy = lambda y, logits: float((logits.argmax(axis=1) == y).mean())
states, later = [], []
folds = [
    trainer.fit(data, epochs=4, seed=1, score=accuracy, on_state=states.append) for _ in range(2)
]
again = predict_logits(model, images, rest, 16)
snapshot = Snapshot.take(model.variables)
for _ in range(2):
    snapshot.put()
    after = predict_logits(model, images, rest, 16)  # Keras gives the memory of variables away
trainer.take_smaller_parts()
halves = trainer.fit(
    data, epochs=4, seed=1, score=accuracy, start=states[1], on_state=later.append
)
writer, saved = ModelWriter(), compilations.with_name("models")
for turn in range(3):
    writer.write(
        model, saved / str(turn), example=images[:1], class_names=("benign", "malignant")
    )
was_whole = (saved / "2").is_dir()
put_together(saved / "2")
whole, made = (
    keras.models.load_model(saved / turn / KERAS_FILE, safe_mode=True) for turn in "12"
)
print(json.dumps({
    "model_is_in_parts": not was_whole,
    "model_differs": float(np.abs(whole.predict(images) - made.predict(images)).max()),
    "compiled": len(list(compilations.iterdir())),
    "halves": [dataclasses.asdict(r) for r in halves.history],
    "epochs_again": len(later),
    "device": dataclasses.asdict(device),
    "xla_flags": os.environ["XLA_FLAGS"],
    "memory_mb": peak_memory_mb(device),
    "folds": [[dataclasses.asdict(r) for r in fold.history] for fold in folds],
    "difference": float(np.abs(again - folds[1].logits).max()),
    "difference_after_a_snapshot": float(np.abs(after - again).max()),
}))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("compilations"))],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_device_is_found_on_jax(answer):
    assert answer["device"]["backend"] == "jax"
    assert answer["device"]["kind"] == "cpu"
    assert answer["memory_mb"] > 10


def test_determinism_is_asked_of_xla_which_knows_the_flag(answer):
    assert "--xla_gpu_deterministic_ops=true" in answer["xla_flags"].split()


def test_a_model_learns_on_jax(answer):
    first, *_, last = answer["folds"][0]
    assert last["loss"] < first["loss"]
    assert last["score"] > 0.9


def test_every_fold_starts_anew_on_jax(answer):
    first, second = answer["folds"]
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3, abs=1e-5)


def test_the_kept_logits_are_those_of_the_kept_weights_on_jax(answer):
    assert answer["difference"] < 1e-4


def test_a_snapshot_outlives_predictions_on_jax(answer):
    assert answer["difference_after_a_snapshot"] < 1e-6


def test_what_was_compiled_is_kept_for_other_processes(answer):
    assert answer["compiled"] >= 1


def test_a_fold_goes_on_in_smaller_parts_on_jax(answer):
    assert answer["epochs_again"] == 2
    assert answer["halves"][:2] == answer["folds"][0][:2]
    assert answer["halves"][3]["loss"] < answer["halves"][0]["loss"]


def test_a_model_is_kept_in_parts_on_jax(answer):
    assert answer["model_is_in_parts"]
    assert answer["model_differs"] == 0.0
