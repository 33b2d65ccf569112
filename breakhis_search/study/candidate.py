"""One configuration brought to life: hyperparameter values, model, training plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt
from optuna.trial import BaseTrial

from breakhis_search.data.draws import TrainingRows
from breakhis_search.data.leaks import check_training
from breakhis_search.data.sampling import prior_correction
from breakhis_search.data.stain import StainReference
from breakhis_search.data.stain_cache import NormalizedImages, StainTable, open_stain_cache
from breakhis_search.data.views import ViewPolicy
from breakhis_search.models.building import build_model
from breakhis_search.models.heads import set_dropout_rate
from breakhis_search.models.initialisation import can_be_initialised, initialise
from breakhis_search.models.space import ARCHITECTURE, declare_space, graph_signature
from breakhis_search.models.trainability import set_trainable
from breakhis_search.study.batch_sizes import batch_size_of
from breakhis_search.study.context import StudyContext
from breakhis_search.study.features import FeatureSource
from breakhis_search.study.hyperparameters import TrialHyperParameters
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.plan import TrainingPlan, read_plan
from breakhis_search.training.results import FoldResult, IntArray, TrainingData
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import Training
from breakhis_search.training.trainer import FoldTrainer, FrozenFeatures


@dataclass(frozen=True)
class Candidate:
    """A configuration with its freshly built model.

    Attributes:
        values: All active hyperparameters, ``group/name`` → value.
        graph: Its model with initial weights, images → logits, shared with other candidates of
            the same graph: see :meth:`FoldTrainer.training` for who may use it when.
        plan: How it is trained.
        seed: Seed of its weights, sampling and augmentation.
        batch_size: Images per step.
        constants: Names of a foreign model that are not searched, such as its own learning rate.
    """

    values: Mapping[str, Any]
    graph: TrainingGraph
    plan: TrainingPlan
    seed: int
    batch_size: int
    constants: tuple[str, ...]

    @property
    def model(self) -> Any:
        """Its Keras model."""
        return self.graph.core

    @property
    def architecture(self) -> str:
        """Its architecture."""
        return str(self.values[ARCHITECTURE])


def build_candidate(trial: BaseTrial, context: StudyContext, *, seed: int) -> Candidate:
    """Draw every hyperparameter from the trial and set up the model.

    Args:
        trial: An Optuna trial, or a ``FixedTrial`` to build a known configuration.
        context: The study.
        seed: Seed of all randomness of the candidate.
    """
    keras.utils.set_random_seed(seed)
    hp = TrialHyperParameters(trial, context.space)
    declare_space(hp, context.architectures)
    graph = _graph_of(hp, context, seed)
    constants = {h.name for h in hp.space if type(h).__name__ == "Fixed"}
    values = {name: value for name, value in hp.values.items() if name not in constants}
    return Candidate(
        values,
        graph,
        plan=read_plan(values),
        seed=seed,
        batch_size=batch_size_of(str(values[ARCHITECTURE]), graph, context),
        constants=tuple(sorted(constants)),
    )


def _graph_of(hp: TrialHyperParameters, context: StudyContext, seed: int) -> TrainingGraph:
    """The graph of the values drawn, taken from a former trial where possible, with new weights."""
    architecture = str(hp.get(ARCHITECTURE))
    weights = context.weights[architecture]
    if not can_be_initialised(architecture, weights):
        model = _build(architecture, hp, context)  # a foreign one declares values on the way
        signature = graph_signature(hp.values)
        graph = context.graphs.find(signature)
        if graph is None:
            return context.graphs.keep(signature, TrainingGraph(model))
        graph.adopt(model)
        return graph
    signature = graph_signature(hp.values)
    graph = context.graphs.find(signature)
    if graph is None:
        graph = TrainingGraph(_build(architecture, hp, context))
        context.graphs.keep(signature, graph)
    graph.restore()
    set_dropout_rate(graph.core, hp.get("head/dropout_rate"))
    initialise(graph.core, weights, seed)
    return graph


def _build(architecture: str, hp: TrialHyperParameters, context: StudyContext) -> Any:
    return build_model(
        architecture,
        hp,
        input_shape=context.input_shape,
        n_classes=len(context.class_names),
        weights=context.weights[architecture],
        foreign_arguments=context.config.model.arguments.get(architecture, {}),
    )


def training_data(context: StudyContext, train: IntArray, validation: IntArray) -> TrainingData:
    """Return what a fold (or, without validation rows, a refit) trains on.

    Raises:
        SplitLeakageError: These rows would tell training something about what is scored.
    """
    check_training(
        context.split,
        train,
        validation,
        n_images=len(context.images),
        patients_may_leak=context.config.protocol.kind == "image",
    )
    table = context.split.table
    y = table["y"].to_numpy(dtype=np.int64)
    rows = TrainingRows(
        y=y[train],
        types=table["type"].to_numpy(dtype=np.str_)[train],
        groups=table["group"].to_numpy(dtype=np.str_)[train],
    )
    return TrainingData(
        context.images, train, rows, validation, y[validation], len(context.class_names)
    )


def stain_reference(
    candidate: Candidate, context: StudyContext, train: IntArray
) -> StainReference | None:
    """Return what the candidate brings images to after training on these rows, if to anything."""
    if candidate.plan.stain == "none":
        return None
    return _stains(context).fit_reference(train)


def prior_shift(candidate: Candidate, context: StudyContext) -> npt.NDArray[np.float64]:
    """Return what undoes the shift of the prior by the candidate's sampling, float64 [K].

    It is that of the refit: a strategy has the same effective prior in every fold.
    """
    nothing = np.empty(0, dtype=np.int64)
    rows = training_data(context, context.split.development, nothing).rows
    plan = candidate.plan
    return prior_correction(
        rows, plan.sampling_strategy, len(context.class_names), plan.class_weighting
    )


def seen_images(
    candidate: Candidate, context: StudyContext, train: IntArray
) -> npt.NDArray[np.uint8]:
    """Return all images as the candidate sees them after training on these rows.

    What is fitted (the reference of stain normalisation) is fitted to the training rows alone.

    Returns:
        uint8 [n, h, w, 3]; where stains are normalised, a view that only gives batches of rows.
    """
    reference = stain_reference(candidate, context, train)
    if reference is None:
        return context.images
    view = NormalizedImages(context.images, _stains(context), reference)
    return cast("npt.NDArray[np.uint8]", view)  # nobody does more than take rows of it


def _stains(context: StudyContext) -> StainTable:
    return open_stain_cache(
        context.images,
        context.split.table["sha256"].tolist(),
        cache_dir=context.settings.cache_dir,
    )


class _Trainer(FoldTrainer):
    """Trains on every fold's images as the candidate sees them."""

    def __init__(self, candidate: Candidate, context: StudyContext, timer: Timer) -> None:
        super().__init__(
            candidate.graph,
            set_trainable=set_trainable,
            plan=candidate.plan,
            config=context.config.training.model_copy(update={"batch_size": candidate.batch_size}),
            device=context.device,
            timer=timer,
            features=frozen_features(candidate, context),
            feeds=context.feeds,
        )
        self._candidate = candidate
        self._context = context

    def training(self, data: TrainingData, **options: Any) -> Training[FoldResult]:
        """Train and validate on the images as they are seen after training on ``data.train``."""
        images = seen_images(self._candidate, self._context, data.train)
        return super().training(replace(data, images=images), **options)


def frozen_features(candidate: Candidate, context: StudyContext) -> FrozenFeatures | None:
    """Return what the backbone says as far as it does not learn, if that is ever the same.

    ``None`` without a backbone, for one that starts from random weights (which differ from seed to
    seed), and where the study wants newly augmented images in every epoch.
    """
    views = context.config.training.features
    if views is None or not _has_constant_features(candidate.plan, candidate.values, context):
        return None
    policy = ViewPolicy(views.levels, views.per_level)

    def store(data: TrainingData) -> FeatureSource:
        reference = stain_reference(candidate, context, data.train)
        return FeatureSource(
            context,
            candidate.architecture,
            data.images,
            reference,
            policy,
            batch_size=candidate.batch_size,
        )

    return FrozenFeatures(
        policy,
        of_backbone=lambda data: store(data).of_backbone(candidate.model),
        of_trunk=lambda data, trunk: store(data).of_trunk(trunk),
    )


def trains_only_a_head(trial: BaseTrial, context: StudyContext) -> bool:
    """Draw the hyperparameters of a trial; tell whether all it trains is a head on features.

    Such a trial takes moments and leaves its model alone while it trains: several may do so side by
    side. A foreign model never is one.
    """
    hp = TrialHyperParameters(trial, context.space)
    declare_space(hp, context.architectures)
    architecture = str(hp.get(ARCHITECTURE))
    if not can_be_initialised(architecture, context.weights[architecture]):
        return False
    plan = read_plan(hp.values)
    has_features = _has_constant_features(plan, hp.values, context)
    return has_features and plan.trainable == "frozen" and bool(context.config.training.features)


def _has_constant_features(
    plan: TrainingPlan, values: Mapping[str, Any], context: StudyContext
) -> bool:
    if plan.trainable is None:
        return False
    return context.weights[str(values[ARCHITECTURE])].sha256 is not None


def trainer_of(candidate: Candidate, context: StudyContext, *, timer: Timer) -> FoldTrainer:
    """Return a trainer whose every fold starts from the candidate's weights as they are now."""
    return _Trainer(candidate, context, timer)
