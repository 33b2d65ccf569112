"""Loss, optimizer and the training graph around a model that gives logits."""

from __future__ import annotations

from typing import Any

import keras
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
        seed: Seed of the augmentation.
    """

    def __init__(self, core: Any, *, strength: float, seed: int) -> None:
        super().__init__()
        self.core = core
        self.strength = strength
        self.random = keras.random.SeedGenerator(seed)

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


def build_optimizer(plan: TrainingPlan, *, peak_rate: float, steps: int) -> Any:
    """Return AdamW with linear warm-up and cosine decay; biases and norms do not decay."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak_rate * 0.1,
        decay_steps=max(1, steps - warmup),
        warmup_target=peak_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def compile_phase(
    core: Any, plan: TrainingPlan, *, peak_rate: float, steps: int, seed: int, xla: bool
) -> AugmentedModel:
    """Return a compiled training model around ``core`` as it is trainable now."""
    model = AugmentedModel(core, strength=plan.augmentation_strength, seed=seed)
    model.compile(
        optimizer=build_optimizer(plan, peak_rate=peak_rate, steps=steps),
        loss=build_loss(plan),
        jit_compile=xla,
    )
    return model
