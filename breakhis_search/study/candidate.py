"""One configuration brought to life: hyperparameter values, model, training plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from optuna.trial import BaseTrial

from breakhis_search.data.sampling import TrainingRows
from breakhis_search.models.building import build_model
from breakhis_search.models.space import ARCHITECTURE, declare_space
from breakhis_search.models.trainability import set_trainable
from breakhis_search.study.context import StudyContext
from breakhis_search.study.hyperparameters import TrialHyperParameters
from breakhis_search.training.plan import TrainingPlan, read_plan
from breakhis_search.training.trainer import FoldTrainer, IntArray, Timer, TrainingData


@dataclass(frozen=True)
class Candidate:
    """A configuration with its freshly built model.

    Attributes:
        values: All active hyperparameters, ``group/name`` → value.
        model: Keras model with initial weights, images → logits.
        plan: How it is trained.
        seed: Seed of its weights, sampling and augmentation.
        constants: Names of a foreign model that are not searched, such as its own learning rate.
    """

    values: Mapping[str, Any]
    model: Any
    plan: TrainingPlan
    seed: int
    constants: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """Its architecture."""
        return str(self.values[ARCHITECTURE])


def build_candidate(trial: BaseTrial, context: StudyContext, *, seed: int) -> Candidate:
    """Draw every hyperparameter from the trial and build the model.

    Args:
        trial: An Optuna trial, or a ``FixedTrial`` to build a known configuration.
        context: The study.
        seed: Seed of all randomness of the candidate.
    """
    keras.utils.set_random_seed(seed)
    hp = TrialHyperParameters(trial, context.config.space)
    declare_space(hp, context.architectures)
    architecture = str(hp.get(ARCHITECTURE))
    model = build_model(
        architecture,
        hp,
        input_shape=context.input_shape,
        n_classes=len(context.class_names),
        weights=context.weights[architecture],
        foreign_arguments=context.config.model.arguments.get(architecture, {}),
    )
    constants = {h.name for h in hp.space if type(h).__name__ == "Fixed"}
    values = {name: value for name, value in hp.values.items() if name not in constants}
    return Candidate(values, model, read_plan(values), seed, tuple(sorted(constants)))


def training_data(context: StudyContext, train: IntArray, validation: IntArray) -> TrainingData:
    """Return what a fold (or, without validation rows, a refit) trains on."""
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


def trainer_of(candidate: Candidate, context: StudyContext, *, timer: Timer) -> FoldTrainer:
    """Return a trainer whose every fold starts from the candidate's weights as they are now."""
    return FoldTrainer(
        candidate.model,
        set_trainable=set_trainable,
        plan=candidate.plan,
        config=context.config.training,
        device=context.device,
        timer=timer,
    )
