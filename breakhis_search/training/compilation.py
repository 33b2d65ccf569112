"""Loss, optimizer and the training step around a model that gives logits, compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from breakhis_search.data.augmentation import augment
from breakhis_search.models.heads import (
    DROPOUT,
    dropout_rate_of,
    has_seam,
    layers_of_head,
    split_at_features,
)
from breakhis_search.training.plan import TrainingPlan

WARMUP_SHARE = 0.1  # of all steps, before the cosine decay


class AugmentedModel(keras.Model):  # type: ignore[misc]  # keras has no types
    """The model under training with augmentation in front, on the device.

    Only the inner model is ever saved: what is served has no layer of ours. What a trial chooses
    without changing the graph is a variable here, so that one compiled step serves all of them. A
    stock dropout layer takes its rate as a constant: that of the head is stepped over while
    training, and done here instead.

    Args:
        core: RGB float32 [n, h, w, 3] in 0–255 → logits float32 [n, K].
    """

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core
        self.strength = self._dial("strength")
        self.dropout_rate = self._dial("dropout_rate")
        self.focal_gamma = self._dial("focal_gamma")
        self.random = keras.random.SeedGenerator(0)
        self.dropping = keras.random.SeedGenerator(1)
        self._answer = _through_head(core)

    def _dial(self, name: str) -> Any:
        return self.add_weight(shape=(), initializer="zeros", trainable=False, name=name)

    def call(self, images: Any, training: bool = False) -> Any:
        """Return logits; augments and drops only while training."""
        images = ops.cast(images, "float32")
        if training:
            images = augment(images, self.strength, self.random)
        return self._answer(images, training, self._drop)

    def _drop(self, features: Any) -> Any:
        """Set a share of the features to 0 and scale up the others, as ``keras.layers.Dropout``."""
        kept_share = 1.0 - self.dropout_rate
        drawn = keras.random.uniform(ops.shape(features), seed=self.dropping)
        scaled = features / ops.cast(kept_share, features.dtype)
        return ops.where(drawn < kept_share, scaled, ops.zeros_like(scaled))


_Answer = Callable[[Any, bool, Callable[[Any], Any]], Any]


def _through_head(core: Any) -> _Answer:
    """Return (images, training, dropout) → logits by the layers of a model.

    A function, because Keras would count a second model that shares the layers as another part.
    """
    if not has_seam(core):
        return lambda images, training, _: core(images, training=training)
    extractor, _ = split_at_features(core)
    head = layers_of_head(core)

    def answer(images: Any, training: bool, drop: Callable[[Any], Any]) -> Any:
        values = extractor(images, training=training)
        for layer in head:
            if layer.name == DROPOUT:
                values = drop(values) if training else values
            else:
                values = layer(values)
        return values

    return answer


class _AdamW(keras.optimizers.AdamW):  # type: ignore[misc]  # keras has no types
    """AdamW whose weight decay is a variable of its own: a number would be compiled in."""

    def build(self, variables: Any) -> None:
        """Make the variables; called once."""
        super().build(variables)
        self.weight_decay = self.add_variable(shape=(), initializer="zeros", name="weight_decay")


def _build_optimizer() -> Any:
    """Return AdamW whose rates are variables, set before training; biases and norms do not decay.

    A schedule object would be compiled into the step; a variable lets all folds share one step.
    """
    optimizer = _AdamW(weight_decay=0.0, name="adamw")
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _build_loss(model: AugmentedModel, *, is_focal: bool) -> Any:
    """Return the loss on (smoothed) one-hot labels: cross-entropy, or focal (Lin et al. 2017)."""

    def cross_entropy(targets: Any, logits: Any) -> Any:
        return keras.losses.categorical_crossentropy(targets, logits, from_logits=True)

    def focal(targets: Any, logits: Any) -> Any:
        return keras.losses.categorical_focal_crossentropy(
            targets, logits, alpha=1.0, gamma=model.focal_gamma, from_logits=True
        )

    return focal if is_focal else cross_entropy


def learning_rates(*, peak: float, steps: int) -> npt.NDArray[np.float32]:
    """Return the rate of every step, float32 [steps]: linear warm-up, then cosine decay to 0.

    >>> learning_rates(peak=1.0, steps=5).astype(float).round(2).tolist()
    [1.0, 0.9, 0.65, 0.35, 0.1]
    """
    warmup = max(1, round(WARMUP_SHARE * steps))
    rising = peak * np.arange(1, warmup + 1) / warmup
    share = np.arange(1, steps - warmup + 1) / max(1, steps - warmup + 1)
    falling = peak * 0.5 * (1.0 + np.cos(np.pi * share))
    rates: npt.NDArray[np.float32] = np.concatenate([rising, falling])[:steps].astype(np.float32)
    return rates


class CompiledPhase:
    """A training model compiled once and used by every fold and trial, each from a clean start.

    Args:
        core: The model as it is trainable in this phase.
        is_focal: Whether the loss is the focal one.
        xla: Whether to compile with XLA.
    """

    def __init__(self, core: Any, *, is_focal: bool, xla: bool) -> None:
        self.model = AugmentedModel(core)
        loss = _build_loss(self.model, is_focal=is_focal)
        self.model.compile(optimizer=_build_optimizer(), loss=loss, jit_compile=xla)
        self.model.optimizer.build(core.trainable_variables)
        self._fresh = [np.array(v) for v in self.model.optimizer.variables]
        self._smoothing = 0.0

    def restart(self, plan: TrainingPlan, seed: int) -> None:
        """Forget momenta and step count; take the values of a plan; seed all that is drawn."""
        model = self.model
        for variable, value in zip(model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        model.optimizer.weight_decay.assign(plan.weight_decay)
        model.strength.assign(plan.augmentation_strength)
        model.dropout_rate.assign(dropout_rate_of(model.core) if has_seam(model.core) else 0.0)
        model.focal_gamma.assign(plan.focal_gamma or 0.0)
        model.random.state.assign(np.array([0, seed], dtype=np.uint32))
        model.dropping.state.assign(np.array([1, seed], dtype=np.uint32))
        self._smoothing = plan.label_smoothing

    def step(
        self, images: Any, targets: Any, weights: Any | None, *, learning_rate: float
    ) -> float:
        """Train on one batch and return its loss."""
        self.model.optimizer.learning_rate = learning_rate
        # Smoothed here and always weighted: every trial meets the step with the same signature.
        smoothed = targets * (1.0 - self._smoothing) + self._smoothing / targets.shape[1]
        every = np.ones(len(targets), np.float32) if weights is None else weights
        loss = self.model.train_on_batch(images, smoothed.astype(np.float32), sample_weight=every)
        return float(np.asarray(loss).reshape(-1)[0])
