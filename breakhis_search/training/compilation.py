"""Loss, optimizer and the training step around a model that gives logits, compiled once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from breakhis_search.data.augmentation import augment
from breakhis_search.models.heads import DROPOUT
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.steps import EpochSteps, build_step

FloatArray = npt.NDArray[np.float32]

WARMUP_SHARE = 0.1  # of all steps, before the cosine decay


class AugmentedModel(keras.Model):  # type: ignore[misc]  # keras has no types
    """The model under training with augmentation in front, on the device.

    Only the inner model is ever saved: what is served has no layer of ours. What a trial chooses
    without changing the graph is a variable here, so that one compiled step serves all of them. A
    stock dropout layer takes its rate as a constant: that of the head is stepped over while
    training, and done here instead.

    Args:
        body: Inputs → features, float32 [n, d]; or inputs → logits, float32 [n, K], where there is
            no head of ours.
        head: The layers behind the features.
        augments: Whether inputs are images, RGB in 0–255 [n, h, w, 3], to be augmented.
        turns: Whether they are also to be mirrored, rotated and zoomed.
    """

    def __init__(
        self, body: Any, head: Sequence[Any], *, augments: bool, turns: bool = True
    ) -> None:
        super().__init__()
        self.body = body
        self.head = list(head)
        self.augments = augments
        self.turns = turns
        self.strength = self._dial("strength")
        self.dropout_rate = self._dial("dropout_rate")
        self.focal_gamma = self._dial("focal_gamma")
        self.random = keras.random.SeedGenerator(0)
        self.dropping = keras.random.SeedGenerator(1)
        self.built = True  # its parts are: nothing is left to make at a first call

    def _dial(self, name: str) -> Any:
        return self.add_weight(shape=(), initializer="zeros", trainable=False, name=name)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return logits; augments and drops only while training."""
        values = ops.cast(inputs, "float32")
        if training and self.augments:
            values = augment(values, self.strength, self.random, turns=self.turns)
        values = self.body(values, training=training)
        for layer in self.head:
            if layer.name == DROPOUT:
                values = self._drop(values) if training else values
            else:
                values = layer(values)
        return values

    @property
    def classes(self) -> int:
        """The number K of logits."""
        return int(self.parts[-1].output.shape[-1])

    @property
    def parts(self) -> list[Any]:
        """The body and the layers of the head."""
        return [self.body, *self.head]

    def _drop(self, features: Any) -> Any:
        """Set a share of the features to 0 and scale up the others, as ``keras.layers.Dropout``."""
        kept_share = 1.0 - self.dropout_rate
        drawn = keras.random.uniform(ops.shape(features), seed=self.dropping)
        scaled = features / ops.cast(kept_share, features.dtype)
        return ops.where(drawn < kept_share, scaled, ops.zeros_like(scaled))


class _AdamW(keras.optimizers.AdamW):  # type: ignore[misc]  # keras has no types
    """AdamW whose weight decay is a variable of its own: a number would be compiled in."""

    def build(self, variables: Any) -> None:
        """Make the variables; called once."""
        super().build(variables)
        self.weight_decay = self.add_variable(shape=(), initializer="zeros", name="weight_decay")


def _build_optimizer(parts: int) -> Any:
    """Return AdamW whose rates are variables, set before training; biases and norms do not decay.

    A schedule object would be compiled into the step; a variable lets all folds share one step.

    Args:
        parts: Of a batch; the variables move after the last one, by the mean of all gradients.
    """
    accumulated = {"gradient_accumulation_steps": parts} if parts > 1 else {}
    optimizer = _AdamW(weight_decay=0.0, name="adamw", **accumulated)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _scaled(optimizer: Any) -> Any:
    """The optimizer, behind a scaling of the loss where gradients would vanish in 16 bits."""
    if keras.config.dtype_policy().name == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
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
    """A training step compiled once and used by every fold and trial, each from a clean start.

    Args:
        model: What trains, as far as it is trainable in this phase.
        is_focal: Whether the loss is the focal one.
        parts: Each batch is taken in so many parts, for want of memory.
    """

    def __init__(self, model: AugmentedModel, *, is_focal: bool, parts: int = 1) -> None:
        self.model = model
        self.optimizer = _build_optimizer(parts)
        self._parts = parts
        applied = _scaled(self.optimizer)
        applied.build(model.trainable_variables)
        self._momenta = list({id(v): v for v in applied.variables}.values())
        self._fresh = Snapshot.take(self._momenta)
        self._step = build_step(model, applied, _build_loss(model, is_focal=is_focal))
        self._smoothing = 0.0
        self._is_warm = False

    @property
    def variables(self) -> list[Any]:
        """All that a step may change or depends on: weights, dials, seeds, momenta.

        They are the same in however many parts a batch is taken. Sums over the parts of a batch
        are none of them: between two batches they are 0, but in float16 where a gradient was left
        out, which costs what is summed of one batch.
        """
        known = {id(v): v for v in [*self.model.variables, *self._momenta]}
        sums = {id(v) for v in self.optimizer._accumulated_gradients} if self._parts > 1 else ()  # noqa: SLF001 - Keras names it nowhere else
        return [variable for key, variable in known.items() if key not in sums]

    @property
    def batches(self) -> int:
        """How many batches it has been trained on since it began: what decides Adam's momenta."""
        return int(np.asarray(self.optimizer.iterations))

    def count_from(self, batches: int) -> None:
        """Go on as if it had been trained on so many batches; Keras counts parts of batches."""
        counted = self.optimizer._iterations  # noqa: SLF001 - `iterations` cannot be set
        counted.assign(batches * self._parts)

    def warm_up(self, batch: Any) -> None:
        """Trace and compile step and prediction, once, so that no epoch pays for it.

        What trains stays as it is; :meth:`restart` must follow.

        Args:
            batch: Inputs of the size that all batches will have.
        """
        if self._is_warm:
            return
        before = Snapshot.take(self.model.variables)
        size, classes = len(batch), self.model.classes
        step = EpochSteps(
            rows=np.zeros((1, size), np.int64),
            targets=np.full((1, size, classes), 1 / classes, np.float32),
            weights=np.ones((1, size), np.float32),
            rates=np.zeros(1, np.float32),
        )
        self.train([batch], step)
        self.predict([batch])
        before.put()
        self._is_warm = True

    def restart(self, plan: TrainingPlan, seed: int, *, dropout_rate: float) -> None:
        """Forget momenta and step count; take the values of a plan; seed all that is drawn."""
        model = self.model
        self._fresh.put()
        self.optimizer.weight_decay.assign(plan.weight_decay)
        model.strength.assign(plan.augmentation_strength)
        model.dropout_rate.assign(dropout_rate)
        model.focal_gamma.assign(plan.focal_gamma or 0.0)
        model.random.state.assign(np.array([0, seed], dtype=np.uint32))
        model.dropping.state.assign(np.array([1, seed], dtype=np.uint32))
        self._smoothing = plan.label_smoothing

    def train(self, inputs: Iterable[Any], steps: EpochSteps) -> float:
        """Take the steps of an epoch and return their mean loss.

        Nothing waits for a step before the last one, so that a GPU never waits for this process.

        Args:
            inputs: Of every step.
            steps: What else they take.
        """
        smoothed = steps.targets * (1.0 - self._smoothing)
        smoothed = (smoothed + self._smoothing / smoothed.shape[-1]).astype(np.float32)
        self._step.begin()
        losses: list[Any] = []
        whole = zip(inputs, smoothed, steps.weights, steps.rates, strict=True)
        for batch, targets, weights, rate in whole:
            parts = zip(*map(self._in_parts, (batch, targets, weights)), strict=True)
            losses += [self._step.take(x, y, w, rate) for x, y, w in parts]
        self._step.end()
        return float(np.mean([np.asarray(loss, dtype=np.float64) for loss in losses]))

    def _in_parts(self, batch: Any) -> list[Any]:
        if self._parts == 1:
            return [batch]
        size = len(batch) // self._parts
        return [batch[i * size : (i + 1) * size] for i in range(self._parts)]

    def predict(self, inputs: Iterable[Any]) -> FloatArray:
        """Return the logits of batches in inference, float32 [all, K]."""
        answers = [self._step.answer(part) for batch in inputs for part in self._in_parts(batch)]
        return np.concatenate([np.asarray(answer, dtype=np.float32) for answer in answers])
