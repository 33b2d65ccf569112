"""The training loop of one fold: two phases, early stopping on the fold's score, best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from breakhis_search.config import TrainingConfig
from breakhis_search.data.feature_store import StoredFeatures
from breakhis_search.data.sampling import class_weights, epoch_stream, steps_per_epoch
from breakhis_search.data.turning import turned_at_random
from breakhis_search.data.views import ViewPolicy
from breakhis_search.errors import OutOfMemoryFailure, TrialFailure
from breakhis_search.models.heads import (
    dropout_rate_of,
    has_seam,
    layers_of_head,
    set_dropout_rate,
)
from breakhis_search.models.trunk import Trunk
from breakhis_search.training.compilation import learning_rates
from breakhis_search.training.devices import Device, is_out_of_memory
from breakhis_search.training.feeding import Feed, Feeds, HostFeed
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.phases import (
    CompiledTraining,
    HeadPhase,
    Phase,
    Steps,
    TrunkViews,
    full_batches,
    head_settings,
)
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.results import (
    EpochReport,
    FloatArray,
    FoldResult,
    IntArray,
    TrainingData,
)
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.spans import Span, spans_of
from breakhis_search.training.state import FoldState
from breakhis_search.training.steps import EpochSteps
from breakhis_search.training.stopping import EarlyStopping
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import Training, run_alone

SMALLEST = 4
"""Fewer images at a time are not tried: what normalises by batch has nothing to go by."""

SetTrainable = Callable[[Any, Any], int]
OnState = Callable[[FoldState], None]
Score = Callable[[IntArray, FloatArray], float | None]
T = TypeVar("T")


@dataclass(frozen=True)
class _Epoch:
    """Where in a training an epoch stands."""

    number: int
    span: Span
    epochs: int
    before: EpochReport | None

    @property
    def is_last(self) -> bool:
        return self.number + 1 == self.epochs


@dataclass(frozen=True)
class FrozenFeatures:
    """What the parts of a pretrained backbone that do not learn say of the images.

    Attributes:
        policy: The views of each image that are stored.
        of_backbone: A fold → the features of all images as they are seen after training on it.
        of_trunk: The same for what a trunk says; ``None`` where that is too much to store.
    """

    policy: ViewPolicy
    of_backbone: Callable[[TrainingData], StoredFeatures]
    of_trunk: Callable[[TrainingData, Trunk], StoredFeatures | None]


class FoldTrainer:
    """Trains a model on one fold after the other.

    Args:
        graph: The model, whose weights now are where every fold starts from, and its steps.
        set_trainable: Freezes all of a pretrained model but the named part.
        plan: Hyperparameters of training.
        config: Epochs, patience, and the batch size as a number.
        device: Where it trains.
        timer: Collects seconds by phase.
        features: What the parts of a backbone that do not learn say of the images, where that is
            stored: the phases then work on it.
        feeds: Images that lie on the device, shared with other trainers.

    Attributes:
        parts: Each batch is taken in so many parts, for want of memory.
    """

    def __init__(
        self,
        graph: TrainingGraph,
        *,
        set_trainable: SetTrainable,
        plan: TrainingPlan,
        config: TrainingConfig,
        device: Device,
        timer: Timer,
        features: FrozenFeatures | None = None,
        feeds: Feeds | None = None,
    ) -> None:
        self._graph = graph
        self._feeds = feeds or Feeds(device)
        self._set_trainable = set_trainable
        self._plan = plan
        self._config = config
        self._batch_size = int(config.batch_size)
        self.parts = 1
        self._device = device
        self._timer = timer
        self._features = features
        self._head = head_settings(graph.core, plan) if has_seam(graph.core) else None
        # All variables, not only weights: the seeds of dropout layers start anew as well.
        only_head = features is not None and not plan.fine_tunes
        layers = layers_of_head(graph.core) if only_head else [graph.core]
        self._initial = Snapshot.take(v for layer in layers for v in layer.variables)

    def take_smaller_parts(self) -> bool:
        """Take every batch in twice as many parts from now on; ``False`` where that is none.

        A step then learns from as many images as before, and what normalises by batch sees fewer.
        """
        if self._batch_size % (2 * self.parts) or self._batch_size // (2 * self.parts) < SMALLEST:
            return False
        self.parts *= 2
        return True

    @property
    def core(self) -> Any:
        """The model, with the weights of the fold that was trained last."""
        return self._graph.core

    def fit(
        self,
        data: TrainingData,
        *,
        epochs: int,
        seed: int,
        score: Score | None = None,
        on_epoch: Callable[[EpochReport], None] = lambda _: None,
        start: FoldState | None = None,
        on_start: Callable[[EpochReport], None] = lambda _: None,
        on_state: OnState | None = None,
    ) -> FoldResult:
        """Train, and leave the kept weights in the model; see :meth:`training`."""
        training = self.training(
            data,
            epochs=epochs,
            seed=seed,
            score=score,
            on_epoch=on_epoch,
            start=start,
            on_start=on_start,
            on_state=on_state,
        )
        result = run_alone(training)
        self.bring_back(result)
        return result

    def bring_back(self, result: FoldResult) -> None:
        """Make the model the one whose weights were kept of a fold."""
        self._initial.put()
        result.kept.put()
        if self._head is not None:
            set_dropout_rate(self.core, self._head.dropout_rate)

    def training(
        self,
        data: TrainingData,
        *,
        epochs: int,
        seed: int,
        score: Score | None = None,
        on_epoch: Callable[[EpochReport], None] = lambda _: None,
        start: FoldState | None = None,
        on_start: Callable[[EpochReport], None] = lambda _: None,
        on_state: OnState | None = None,
    ) -> Training[FoldResult]:
        """Train a fold, keep the weights of the best epoch (of the last one without ``score``).

        Between two steps of a head on stored features other trainings may use the model; between
        others nobody may.

        Args:
            data: Images and rows.
            epochs: Upper limit; exact when there is no ``score``.
            seed: Seed of sampling and augmentation.
            score: Objective of the fold from (y, logits); enables early stopping.
            on_epoch: Called after every epoch; what it raises (a pruned trial) passes through.
            start: Where an earlier training of this fold stood, with the same of everything else.
            on_start: Told of every epoch of ``start``, once it is known to fit.
            on_state: Told after every epoch where the training stands, but by a head on features.

        Raises:
            TrialFailure: The loss is not finite, or the device is out of memory.
            StateMismatchError: ``start`` is of another graph.
        """
        self._initial.put()
        stopper = EarlyStopping(self._config.patience)
        history: list[EpochReport] = []
        stream = epoch_stream(
            data.rows,
            self._plan.sampling_strategy,
            batch_size=self._batch_size,
            rng=np.random.default_rng(seed),
        )
        if start:
            history += start.history
            stopper.go_on(self.core, start.best)
        spans = spans_of(self._plan, head_epochs=self._config.head_epochs, epochs=epochs)
        with self._memory_errors():
            for span in spans:
                if start and span.last_epoch <= start.epochs and span.name != start.span:
                    for _ in range(span.first_epoch, span.last_epoch):
                        next(stream)  # what it trained on
                    continue
                phase = self._enter(span, data, seed)
                if start and span.name == start.span:
                    phase.go_on(start.phase)
                    for report in start.history:
                        on_start(report)
                for epoch, rates in self._rates(span, data):
                    order = next(stream)
                    if epoch < len(history):
                        continue
                    if span is spans[-1] and stopper.is_exhausted:
                        break
                    where = _Epoch(epoch, span, epochs, _last(history))
                    report, logits = yield from self._epoch(phase, data, order, rates, where, score)
                    history.append(report)
                    stopper.see(report, logits, phase)
                    on_epoch(report)
                    if on_state:
                        with self._timer.measure("checkpoint"):
                            self._keep_state(on_state, span, phase, stopper, history)
                if span is not spans[-1]:
                    phase.snapshot().put()  # the next phase goes on from here
                    stopper.start_again()  # fine-tuning gets its chance whatever the head did
            return FoldResult(tuple(history), *stopper.kept(phase))

    def _keep_state(
        self,
        on_state: OnState,
        span: Span,
        phase: Phase,
        stopper: EarlyStopping,
        history: list[EpochReport],
    ) -> None:
        """Hand over where the training stands, unless it is done in moments."""
        part = phase.state()
        if part:
            on_state(FoldState(span.name, tuple(history), part, stopper.state(self.core)))

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemoryFailure(
                    f"out of memory on {self._device.name}",
                    received=f"{self._batch_size // self.parts} images at a time",
                    remedy="use a smaller batch or smaller images",
                ) from error
            raise

    def _rates(self, span: Span, data: TrainingData) -> Iterator[tuple[int, FloatArray]]:
        """Every epoch of a phase with the learning rates of its steps."""
        steps = steps_per_epoch(data.rows, self._plan.sampling_strategy, self._batch_size)
        length = span.last_epoch - span.first_epoch
        rates = learning_rates(peak=span.peak_rate, steps=steps * length).reshape(length, -1)
        return enumerate(rates, start=span.first_epoch)

    def _epoch(
        self,
        phase: Phase,
        data: TrainingData,
        order: IntArray,
        rates: FloatArray,
        epoch: _Epoch,
        score: Score | None,
    ) -> Training[tuple[EpochReport, FloatArray | None]]:
        with self._timer.measure("train"):
            loss = yield from self._train_epoch(phase, data, order, rates, epoch)
        logits = None
        # Without a score nothing is chosen by epoch: only the last answer counts.
        if len(data.validation) and (score or epoch.is_last):
            with self._timer.measure("validate"):
                logits = phase.predict(data.validation)
        val_loss, value = _validate(data, logits, score, epoch)
        rate = float(rates[-1])
        return EpochReport(epoch.number, epoch.span.name, loss, val_loss, value, rate), logits

    def _enter(self, span: Span, data: TrainingData, seed: int) -> Phase:
        """What trains in a span, started anew."""
        if span.part == "head" and self._features is not None and self._head is not None:
            with self._timer.measure("features"):
                stored = self._features.of_backbone(data)
            return HeadPhase(
                self.core,
                stored,
                self._features.policy,
                strength=self._plan.augmentation_strength,
                settings=self._head,
                seed=seed,
            )
        if span.part is not None:
            self._set_trainable(self.core, span.part)
        return self._compiled(span, data, seed + span.first_epoch)

    def _compiled(self, span: Span, data: TrainingData, seed: int) -> CompiledTraining:
        """What trains by a compiled step: the tail on stored activations, or all on images."""
        part, is_focal = span.part or "all", self._plan.sampling_strategy == "focal"
        trunk = self._graph.trunk(part) if self._features and part != "whole" else None
        stored = None
        if self._features and trunk:
            with self._timer.measure("features"):
                stored = self._features.of_trunk(data, trunk)
        strength, rng = self._plan.augmentation_strength, np.random.default_rng([seed, 1])
        with self._timer.measure("trace"):
            if self._features and trunk and stored:
                compiled = self._graph.tail_phase(part, is_focal=is_focal, parts=self.parts)
                views = TrunkViews(stored, trunk.shape, self._features.policy)
                training: Feed = HostFeed(views.drawn(strength, rng))
                validation: Feed = HostFeed(views.plain)
            else:
                on_host = self._device.kind == "cpu"  # there OpenCV turns images, ahead of the step
                compiled = self._graph.phase(
                    part, is_focal=is_focal, turns=not on_host, parts=self.parts
                )
                training = validation = self._feeds.of(data.images)
                if on_host:
                    training = HostFeed(turned_at_random(data.images, strength, rng))
            [batch] = validation.batches(full_batches(data.train[:1], self._batch_size))
            compiled.warm_up(batch)
            dropout_rate = dropout_rate_of(self.core) if self._head else 0.0
            compiled.restart(self._plan, seed, dropout_rate=dropout_rate)
        return CompiledTraining(
            compiled, training, validation, batch_size=self._batch_size, rng=rng
        )

    def _train_epoch(
        self,
        phase: Phase,
        data: TrainingData,
        order: IntArray,
        rates: FloatArray,
        epoch: _Epoch,
    ) -> Training[float]:
        loss = yield from self._apart(phase.train(self._steps(data, order, rates)))
        if not math.isfinite(loss):
            raise TrialFailure(
                f"the training loss is not finite in epoch {epoch.number + 1}",
                received=f"loss {loss}{_in_words(epoch.before)}",
                remedy="lower optimizer/learning_rate in the study's space",
            )
        return loss

    def _steps(self, data: TrainingData, order: IntArray, rates: FloatArray) -> EpochSteps:
        """The steps of an epoch that draws the training images in this order."""
        rows = order[: len(rates) * self._batch_size].reshape(len(rates), -1)
        y = data.rows.y[rows]
        weights = np.ones(y.shape, np.float32)
        if self._plan.sampling_strategy == "class_weights":
            by_class = class_weights(data.rows.y, data.n_classes, str(self._plan.class_weighting))
            weights = by_class[y].astype(np.float32)
        targets = np.eye(data.n_classes, dtype=np.float32)[y]
        return EpochSteps(data.train[rows], targets, weights, rates)

    def _apart(self, steps: Steps[T]) -> Steps[T]:
        """The same steps; the time that others take between them is not this training's."""
        taken = None
        while True:
            try:
                asked = next(steps) if taken is None else steps.send(taken)
            except StopIteration as end:
                result: T = end.value
                return result
            start, own = time.perf_counter(), 0.0
            try:
                taken = yield asked
                own = taken.seconds
            finally:  # also where the company is cut off
                self._timer.away += time.perf_counter() - start - own


def _last(history: list[EpochReport]) -> EpochReport | None:
    return history[-1] if history else None


def _in_words(before: EpochReport | None) -> str:
    """What was known after the last epoch that gave numbers."""
    if before is None:
        return ""
    score = "" if before.score is None else f", score {before.score:.4f}"
    return f" (epoch {before.epoch + 1}: loss {before.loss:.4f}{score})"


def _validate(
    data: TrainingData, logits: FloatArray | None, score: Score | None, epoch: _Epoch
) -> tuple[float | None, float | None]:
    """Negative log-likelihood and score of the fold, as far as they are defined."""
    if logits is None:
        return None, None
    if not np.isfinite(logits).all():
        raise TrialFailure(
            "the model answers validation images with numbers that are not finite in epoch"
            f" {epoch.number + 1}",
            received=f"logits{_in_words(epoch.before)}",
            remedy="lower optimizer/learning_rate in the study's space",
        )
    value = score(data.validation_y, logits) if score else None
    return negative_log_likelihood(data.validation_y, logits), value


def negative_log_likelihood(y: IntArray, logits: FloatArray) -> float:
    """Return the mean −log p(y), in nats.

    >>> round(negative_log_likelihood(np.array([0]), np.zeros((1, 2), np.float32)), 4)
    0.6931
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return float((log_total - shifted[np.arange(len(y)), y]).mean())
