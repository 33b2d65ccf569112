"""Loss, optimizer and the training graph around a model that gives logits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from breakhis_search.data.augmentation import augment
from breakhis_search.training.plan import TrainingPlan

WARMUP_SHARE = 0.1  # of all steps, before the cosine decay


class AugmentedModel(keras.Model):  # type: ignore[misc]  # keras has no types
    """The model under training with augmentation in front, on the device.

    Only the inner model is ever saved: what is served has no layer of ours.

    Args:
        core: RGB float32 [n, h, w, 3] in 0–255 → logits float32 [n, K].
        strength: Augmentation strength in [0, 1].
    """

    def __init__(self, core: Any, *, strength: float) -> None:
        super().__init__()
        self.core = core
        self.strength = strength
        self.random = keras.random.SeedGenerator(0)

    def call(self, images: Any, training: bool = False) -> Any:
        """Return logits; augments only while training."""
        images = ops.cast(images, "float32")
        if training:
            images = augment(images, self.strength, self.random)
        return self.core(images, training=training)


def build_loss(plan: TrainingPlan) -> Any:
    """Return the loss on one-hot labels and logits: cross-entropy, or focal (Lin et al. 2017)."""
    if plan.sampling_strategy == "focal":
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0,
            gamma=plan.focal_gamma,
            from_logits=True,
            label_smoothing=plan.label_smoothing,
        )
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=plan.label_smoothing
    )


def build_optimizer(plan: TrainingPlan) -> Any:
    """Return AdamW whose rate is a variable, set before every step; biases and norms do not decay.

    A schedule object would be compiled into the step; a variable lets all folds share one step.
    """
    optimizer = keras.optimizers.AdamW(plan.learning_rate, weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


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
    """A training model compiled once and used for every fold, each time from a clean start.

    Args:
        core: The model as it is trainable in this phase.
        plan: How it is trained.
        xla: Whether to compile with XLA.
    """

    def __init__(self, core: Any, plan: TrainingPlan, *, xla: bool) -> None:
        self.model = AugmentedModel(core, strength=plan.augmentation_strength)
        self.model.compile(optimizer=build_optimizer(plan), loss=build_loss(plan), jit_compile=xla)
        self.model.optimizer.build(core.trainable_variables)
        self._fresh = [np.array(v) for v in self.model.optimizer.variables]

    def restart(self, seed: int) -> None:
        """Forget momenta and step count, and seed the augmentation."""
        for variable, value in zip(self.model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        self.model.random.state.assign(np.array([0, seed], dtype=np.uint32))

    def step(
        self, images: Any, targets: Any, weights: Any | None, *, learning_rate: float
    ) -> float:
        """Train on one batch and return its loss."""
        self.model.optimizer.learning_rate = learning_rate
        loss = self.model.train_on_batch(images, targets, sample_weight=weights)
        return float(np.asarray(loss).reshape(-1)[0])
