"""One phase of training a fold: by a compiled step, or of a head alone on stored features."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from breakhis_search.data.feature_store import StoredFeatures
from breakhis_search.data.views import PLAIN, ViewPolicy
from breakhis_search.models.heads import dropout_rate_of
from breakhis_search.training.compilation import CompiledPhase
from breakhis_search.training.feeding import Feed
from breakhis_search.training.head_batch import HeadBatch, HeadSettings
from breakhis_search.training.plan import TrainingPlan
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.state import Part, StateMismatchError, put_values, values_of
from breakhis_search.training.steps import EpochSteps

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class HeadStep:
    """A step of a head on stored features, to be taken by who runs the training.

    Attributes:
        phase: Whose head.
        features: float32 [b, d].
        targets: One-hot, float32 [b, K].
        weights: Of each image in the loss, float32 [b].
        rate: Learning rate.
    """

    phase: HeadPhase
    features: FloatArray
    targets: FloatArray
    weights: FloatArray
    rate: float


class StepTaken(NamedTuple):
    """What a training is told of a step it asked for.

    Attributes:
        loss: Before the step.
        seconds: Its share of the time that the step took.
    """

    loss: float
    seconds: float


Steps: TypeAlias = Generator[HeadStep, StepTaken, T]
"""What yields the steps that others may take part in, and returns a result."""


class Phase(Protocol):
    """Trains a model that it was given on rows of the images it was given."""

    def train(self, steps: EpochSteps) -> Steps[float]:
        """Take the steps of an epoch and return their mean loss.

        Yields those that others may take part in.
        """

    def snapshot(self) -> Snapshot:
        """Return what has been learnt so far, as values for variables of the model."""

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the given rows, float32 [n, K]."""

    def state(self) -> Part | None:
        """Return all that is needed to go on from here; ``None`` for what takes only moments."""

    def go_on(self, state: Part) -> None:
        """Be as it was.

        Raises:
            StateMismatchError: The state is that of another graph.
        """


class CompiledTraining:
    """Trains by a compiled step: the whole model on images, or its tail on stored activations.

    Args:
        compiled: The step.
        training: Inputs to train on.
        validation: The same without augmentation.
        batch_size: Images per step of a prediction.
        rng: What the training inputs are drawn with on the host.
    """

    def __init__(
        self,
        compiled: CompiledPhase,
        training: Feed,
        validation: Feed,
        *,
        batch_size: int,
        rng: np.random.Generator,
    ) -> None:
        self._compiled = compiled
        self._training = training
        self._validation = validation
        self._batch_size = batch_size
        self._rng = rng

    def train(self, steps: EpochSteps) -> Steps[float]:
        """Train on every batch."""
        yield from ()  # it needs nobody else
        return self._compiled.train(self._training.batches(steps.rows), steps)

    def snapshot(self) -> Snapshot:
        """Return all weights of what trains."""
        parts = self._compiled.model.parts
        return Snapshot.take(weight for part in parts for weight in part.weights)

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        batches = full_batches(rows, self._batch_size)
        return self._compiled.predict(self._validation.batches(batches))[: len(rows)]

    def state(self) -> Part:
        """Return weights, momenta, and where all random numbers stand."""
        compiled = self._compiled
        facts = {"rng": self._rng.bit_generator.state, "batches": compiled.batches}
        return Part(values_of(compiled.variables), facts)

    def go_on(self, state: Part) -> None:
        """Be as it was."""
        put_values(self._compiled.variables, state.arrays)
        self._compiled.count_from(state.facts["batches"])
        self._rng.bit_generator.state = state.facts["rng"]


@dataclass(frozen=True)
class TrunkViews:
    """What a trunk said of the views of images, as inputs of the tail.

    Attributes:
        stored: Of all images.
        shape: Of what the trunk gives for an image.
        policy: The views that are stored.
    """

    stored: StoredFeatures
    shape: tuple[int, ...]
    policy: ViewPolicy

    def plain(self, rows: IntArray) -> FloatArray:
        """Return the activations of the images as they are, float32 [b, *shape]."""
        return self.stored.take(rows, PLAIN).reshape(len(rows), *self.shape)

    def drawn(self, strength: float, rng: np.random.Generator) -> Callable[[IntArray], FloatArray]:
        """Return what gives the activations of one view of each image."""

        def take(rows: IntArray) -> FloatArray:
            views = self.policy.draw(strength, len(rows), rng)
            return self.stored.take(rows, views).reshape(len(rows), *self.shape)

        return take


class HeadPhase:
    """Trains the head alone on stored features: a few matrix products a step, nothing compiled.

    It takes the head's weights from the model at its start and keeps its own from then on.

    Args:
        core: A transfer model of ours, images → logits.
        features: Of all images.
        policy: The views that are stored of each image.
        strength: Of augmentation.
        settings: How the head is trained.
        seed: Of dropout and of the views that are drawn.

    Attributes:
        batch: The batch that the head is part of, with others where trainings go side by side.
        place: Of the head in the batch.
    """

    def __init__(
        self,
        core: Any,
        features: StoredFeatures,
        policy: ViewPolicy,
        *,
        strength: float,
        settings: HeadSettings,
        seed: int,
    ) -> None:
        layers = [layer for layer in core.layers if layer.name in ("head_dense", "logits")]
        self._variables = [variable for layer in layers for variable in layer.weights]
        self._features = features
        self._policy = policy
        self._strength = strength
        self._rng = np.random.default_rng([seed, 1])
        units = layers[0].units if len(layers) > 1 else 0
        self.size = (features.width, units, layers[-1].units)
        self.batch = HeadBatch(
            [settings],
            features=features.width,
            units=units,
            classes=layers[-1].units,
            seeds=[seed],
        )
        self.batch.set_weights(0, [np.array(variable) for variable in self._variables])
        self.place = 0

    def train(self, steps: EpochSteps) -> Steps[float]:
        """Yield every step, on one stored view of each image."""
        losses = []
        for rows, targets, weights, rate in zip(
            steps.rows, steps.targets, steps.weights, steps.rates, strict=True
        ):
            views = self._policy.draw(self._strength, len(rows), self._rng)
            features = self._features.take(rows, views)
            taken = yield HeadStep(self, features, targets, weights, float(rate))
            losses.append(taken.loss)
        return float(np.mean(losses))

    def snapshot(self) -> Snapshot:
        """Return the head's weights."""
        return Snapshot(self._variables, self.batch.weights_of(self.place))

    def predict(self, rows: IntArray) -> FloatArray:
        """Return the logits of the images as they are."""
        heads = slice(self.place, self.place + 1)
        answers: FloatArray = self.batch.logits(self._features.take(rows, PLAIN), heads)[0]
        return answers

    def state(self) -> None:
        """Return nothing: all epochs take a tenth of a second."""

    def go_on(self, _state: Part) -> None:
        """Refuse: no such phase has a state."""
        message = "a head on stored features starts anew"
        raise StateMismatchError(message)


def head_settings(core: Any, plan: TrainingPlan) -> HeadSettings:
    """Return how the head of a model is trained."""
    return HeadSettings(
        dropout_rate=dropout_rate_of(core),
        weight_decay=plan.weight_decay,
        label_smoothing=plan.label_smoothing,
        focal_gamma=plan.focal_gamma if plan.sampling_strategy == "focal" else None,
    )


def full_batches(rows: IntArray, batch_size: int) -> IntArray:
    """Return rows as full batches, int64 [batches, batch_size]; a partial one would be traced anew.

    >>> full_batches(np.arange(3), 2).tolist()
    [[0, 1], [2, 0]]
    """
    count = -(-len(rows) // batch_size)
    return np.resize(rows, count * batch_size).reshape(count, batch_size)


def predict_logits(
    model: Any, images: npt.NDArray[np.uint8], rows: IntArray, batch_size: int
) -> FloatArray:
    """Return the logits of the given rows, float32 [n, K].

    Args:
        model: A Keras model, RGB 0–255 → logits.
        images: uint8 [n, h, w, 3].
        rows: Rows to score.
        batch_size: Images per step.
    """
    batches = full_batches(rows, batch_size)
    parts = [np.asarray(model.predict_on_batch(images[b]), dtype=np.float32) for b in batches]
    return np.concatenate(parts)[: len(rows)]
