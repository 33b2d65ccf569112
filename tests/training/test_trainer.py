"""The training loop on a real small model: phases, early stopping, clean restarts, failures."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.data.sampling import TrainingRows
from breakhis_search.errors import TrialFailure
from breakhis_search.models.building import build_model
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.weights import ResolvedWeights, resolve_weights
from breakhis_search.training.compilation import learning_rates
from breakhis_search.training.devices import Device
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import TrainingData
from breakhis_search.training.steps import EpochSteps
from breakhis_search.training.timing import Timer
from breakhis_search.training.trainer import FoldTrainer

CPU = Device("cpu", "test", "tensorflow", "float32")
PLAN = TrainingPlan(
    learning_rate=3e-3,
    weight_decay=1e-4,
    label_smoothing=0.0,
    augmentation_strength=0.3,
    sampling_strategy="none",
)


def make_data(validation: bool = True, n: int = 48) -> TrainingData:
    """Red against blue images: learnt in an epoch or two."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    images = rng.integers(0, 60, (n, 32, 48, 3), dtype=np.uint8)
    images[y == 0, :, :, 0] += 150
    images[y == 1, :, :, 2] += 150
    train, rest = np.arange(32), np.arange(32, n) if validation else np.arange(0)
    groups = np.array([f"p{i % 4}" for i in range(n)])
    rows = TrainingRows(y[train], np.where(y[train] == 0, "a", "b"), groups[train])
    return TrainingData(images, train, rows, rest, y[rest], 2)


def make_model(architecture: str = "small_cnn", weights: ResolvedWeights | None = None):
    keras.utils.set_random_seed(5)
    return build_model(
        architecture,
        SpaceRecorder(),
        input_shape=(32, 48, 3),
        n_classes=2,
        weights=weights or ResolvedWeights(architecture, "none"),
    )


def make_trainer(model, plan: TrainingPlan = PLAN, **config: int) -> FoldTrainer:
    settings = {"max_epochs": 4, "head_epochs": 1, "patience": 9, "batch_size": 16} | config
    return FoldTrainer(
        TrainingGraph(model),
        set_trainable=set_trainable,
        plan=plan,
        config=TrainingConfig(**settings),
        device=CPU,
        timer=Timer(),
    )


def accuracy(y, logits) -> float:
    return float((logits.argmax(axis=1) == y).mean())


@pytest.fixture(scope="module")
def trained():
    model = make_model()
    trainer = make_trainer(model)
    result = trainer.fit(make_data(), epochs=4, seed=1, score=accuracy)
    return model, trainer, result


def test_a_model_learns_what_can_be_learnt(trained):
    _, _, result = trained
    assert result.history[-1].loss < result.history[0].loss
    assert max(r.score for r in result.history) > 0.9


def test_the_kept_logits_are_those_of_the_kept_weights(trained):
    model, _, result = trained
    data = make_data()
    again = predict_logits(model, data.images, data.validation, 16)
    np.testing.assert_allclose(again, result.logits, atol=1e-4)


def test_the_kept_epoch_is_the_best_one(trained):
    _, _, result = trained
    ranks = [(r.score, -r.val_loss) for r in result.history]
    assert result.best_epoch == ranks.index(max(ranks)) + 1


def test_a_fold_trained_again_gives_the_same_numbers(trained):
    # The compiled step is used for all folds: weights, momenta and seeds must start clean.
    _, trainer, first = trained
    again = trainer.fit(make_data(), epochs=4, seed=1, score=accuracy)
    for a, b in zip(first.history, again.history, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-3, abs=1e-5)
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-2, abs=1e-4)


def test_another_seed_gives_other_numbers(trained):
    _, trainer, first = trained
    other = trainer.fit(make_data(), epochs=2, seed=2, score=accuracy)
    assert other.history[0].loss != first.history[0].loss


def test_training_stops_when_patience_is_used_up(trained):
    model, _, _ = trained
    never_better = iter(np.linspace(1, 0, 50))
    result = make_trainer(model, patience=2).fit(
        make_data(), epochs=30, seed=1, score=lambda y, logits: float(next(never_better))
    )
    assert len(result.history) == 3
    assert result.best_epoch == 1


def test_patience_starts_anew_after_the_head(trained):
    model, _, _ = trained
    plan = dataclasses.replace(PLAN, trainable="last_block", backbone_learning_rate=1e-4)
    never_better = iter(np.linspace(1, 0, 50))
    trainer = make_trainer(model, plan, head_epochs=4, patience=2, max_epochs=30)
    trainer._set_trainable = lambda core, part: 0  # which layers learn does not matter here
    result = trainer.fit(
        make_data(), epochs=30, seed=1, score=lambda y, logits: float(next(never_better))
    )
    # Used up after the third epoch, it neither ends the head nor counts for fine-tuning.
    assert [r.phase for r in result.history] == ["head"] * 4 + ["fine_tune"] * 2
    assert result.best_epoch == 1


def test_without_validation_the_last_weights_are_kept(trained):
    model, _, _ = trained
    result = make_trainer(model).fit(make_data(validation=False), epochs=2, seed=1)
    assert [r.val_loss for r in result.history] == [None, None]
    assert result.best_epoch == 2
    assert result.logits is None


def test_what_the_observer_raises_passes_through(trained):
    model, _, _ = trained

    def stop(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(model).fit(make_data(), epochs=2, seed=1, on_epoch=stop)


def test_a_loss_that_is_not_finite_fails_the_trial():
    model = make_model()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(TrialFailure, match="training loss is not finite.*lower optimizer"):
        make_trainer(model).fit(make_data(), epochs=1, seed=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_strategy": "class_weights", "class_weighting": "inverse"},
        {"sampling_strategy": "focal", "focal_gamma": 2.0},
        {"sampling_strategy": "patient_balanced", "label_smoothing": 0.1},
    ],
)
def test_every_kind_of_correction_trains(changes):
    plan = dataclasses.replace(PLAN, **changes)
    result = make_trainer(make_model(), plan).fit(make_data(), epochs=1, seed=1, score=accuracy)
    assert np.isfinite(result.history[0].loss)


def test_the_head_learns_first_and_the_backbone_then_at_its_own_rate(real_weights):
    # Random weights would not do: through 28 layers their gradient is 0.
    weights = resolve_weights("mobilenet", source="imagenet", weights_dir=real_weights)
    model = make_model("mobilenet", weights)
    # Smoothing keeps the gradient from vanishing on images that are this easy.
    plan = dataclasses.replace(
        PLAN, trainable="last_block", backbone_learning_rate=1e-4, label_smoothing=0.1
    )
    backbone = [v for v in model.variables if "conv_pw" in v.path]
    before = [np.array(v) for v in backbone]
    changed: list[int] = []

    def watch(report):
        changed.append(
            sum(not np.array_equal(a, np.array(v)) for a, v in zip(before, backbone, strict=True))
        )

    result = make_trainer(model, plan).fit(
        make_data(), epochs=3, seed=1, score=accuracy, on_epoch=watch
    )
    assert [r.phase for r in result.history] == ["head", "fine_tune", "fine_tune"]
    assert result.history[1].learning_rate <= 1e-4
    assert changed[0] == 0
    assert 0 < changed[-1] < len(backbone), "only the last block is fine-tuned"


def test_a_frozen_backbone_never_changes():
    model = make_model("mobilenet")
    plan = dataclasses.replace(PLAN, trainable="frozen")
    before = [np.array(v) for v in model.variables if "conv" in v.path]
    make_trainer(model, plan).fit(make_data(), epochs=1, seed=1)
    after = [np.array(v) for v in model.variables if "conv" in v.path]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_prediction_pads_the_last_batch():
    model, data = make_model(), make_data()
    whole = predict_logits(model, data.images, np.arange(7), 16)
    parts = [predict_logits(model, data.images, np.array([i]), 16) for i in range(7)]
    assert whole.shape == (7, 2)
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-4)


def test_the_rate_rises_to_its_peak_and_falls():
    rates = learning_rates(peak=2.0, steps=100)
    assert rates.argmax() == 9
    assert rates.max() == pytest.approx(2.0)
    assert (np.diff(rates[9:]) < 0).all()
    assert rates[-1] < 0.01


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_there_is_a_rate_for_every_step(steps):
    assert len(learning_rates(peak=1.0, steps=steps)) == steps


def test_focal_loss_by_hand():
    # −(1 − p)^γ log p with p = softmax(0, 0) = ½, γ = 2: ¼ · log 2
    plan = dataclasses.replace(PLAN, sampling_strategy="focal", focal_gamma=2.0)
    model = make_model()
    model.get_layer("logits").kernel.assign(np.zeros(model.get_layer("logits").kernel.shape))
    phase = TrainingGraph(model).phase("all", is_focal=True, turns=True)
    phase.restart(plan, seed=0, dropout_rate=0.0)
    images, targets = np.zeros((1, 32, 48, 3), np.uint8), np.array([[[1.0, 0.0]]], np.float32)
    step = EpochSteps(
        np.zeros((1, 1), int), targets, np.ones((1, 1), np.float32), np.full(1, 1e-9, np.float32)
    )
    assert phase.train([images], step) == pytest.approx(2 * 0.25 * np.log(2) / 2, rel=1e-4)
