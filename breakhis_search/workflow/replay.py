"""``replay``: trains a trial again from what MLflow holds of it, and compares. Loads Keras late."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breakhis_search.errors import ReplayError
from breakhis_search.settings import Settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.provenance import provenance_tags
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.workflow.preparation import PreparedRun, Watcher, prepare_run
from breakhis_search.workflow.request import RunRequest

if TYPE_CHECKING:
    from breakhis_search.study.context import StudyContext

_SETTINGS = ("data/", "training/")
"""Prefixes of params that the study fixes for all its trials."""


@dataclass(frozen=True)
class Ingredient:
    """Something that a result is made of.

    Attributes:
        name: What it is.
        then: As it was for the trial.
        now: As it is here.
    """

    name: str
    then: str
    now: str

    @property
    def differs(self) -> bool:
        """Whether it is another one."""
        return self.then != self.now


@dataclass(frozen=True)
class Replayed:
    """A trial, trained again.

    Attributes:
        run_id: Of the trial, in MLflow.
        trial: Its number.
        study: Full name of its study.
        ingredients: What it was made of, and what this was made of.
        metrics: Name → (then, now).
        is_deterministic: Whether the study asks for deterministic operations only.
    """

    run_id: str
    trial: int
    study: str
    ingredients: tuple[Ingredient, ...]
    metrics: Mapping[str, tuple[float, float]]
    is_deterministic: bool

    @property
    def is_equal(self) -> bool:
        """Whether all metrics are the same, bit by bit."""
        return all(then == now for then, now in self.metrics.values())

    @property
    def differing(self) -> tuple[Ingredient, ...]:
        """The ingredients that are others."""
        return tuple(i for i in self.ingredients if i.differs)


@dataclass(frozen=True)
class Recorded:
    """A trial as MLflow holds it.

    Attributes:
        run: The MLflow run.
        values: Its hyperparameters.
    """

    run: Any
    values: Mapping[str, Any]

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        tags: Mapping[str, str] = self.run.data.tags
        return tags

    @property
    def batch_size(self) -> int:
        """Images per step."""
        return int(self.run.data.params["training/batch_size"])


def replay(
    run_id: str,
    settings: Settings,
    watcher: Watcher,
    *,
    data: Path | None = None,
    weights_dir: Path | None = None,
) -> Replayed:
    """Train a complete trial of a search again and compare; nothing is recorded.

    Args:
        run_id: Of its MLflow run.
        settings: Where things are.
        watcher: Told what is being done.
        data: Its images; by default where its study had them.
        weights_dir: Folder with pretrained weights; by default where its study had them.

    Raises:
        ReplayError: The run is no complete trial of a search.
        BreakhisSearchError: Data, weights or stores cannot be used.
    """
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri), tempfile.TemporaryDirectory() as folder:
        recorded = _read(client, run_id)
        study_file = client.download_artifacts(run_id, keys.ARTIFACT_CONFIG, folder)
        request = RunRequest(
            study=study_file,
            data=data or Path(recorded.tags[keys.DATA_FOLDER]),
            weights_dir=weights_dir or _weights_folder(recorded),
            accepts_leakage=True,
        )
        architecture = recorded.tags[keys.ARCHITECTURE]
        prepared = prepare_run(request, settings, watcher, replayed=architecture)
    with closing(_context(prepared, watcher)) as context:
        now, is_deterministic = _train(recorded, context.study, watcher)
        ingredients = _ingredients(recorded, context.study)
    then = recorded.run.data.metrics
    return Replayed(
        run_id=run_id,
        trial=int(recorded.tags[keys.TRIAL_NUMBER]),
        study=recorded.tags[keys.STUDY],
        ingredients=tuple(ingredients),
        metrics={name: (then[name], value) for name, value in now.items() if name in then},
        is_deterministic=is_deterministic,
    )


def _weights_folder(recorded: Recorded) -> Path | None:
    """Where the study had its weights, if this machine has that place."""
    folder = recorded.tags.get(keys.WEIGHTS_FOLDER)
    return Path(folder) if folder and Path(folder).is_dir() else None


def _read(client: Any, run_id: str) -> Recorded:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise ReplayError(
            f"there is no run {run_id}",
            expected="the id of a trial's run in MLflow",
            remedy="see `ui`, or `compare --json`",
        ) from error
    tags = run.data.tags
    role, state = tags.get(keys.ROLE), tags.get(keys.STATE)
    if role != keys.ROLE_TRIAL or state != "complete":
        raise ReplayError(
            f"run {run_id} cannot be replayed",
            expected="a complete trial of a search",
            received=f"role {role}, state {state}",
            remedy="a finalist has the number of its trial: replay that one",
        )
    values = {
        name: _value_of(text)
        for name, text in run.data.params.items()
        if not name.startswith(_SETTINGS)
    }
    return Recorded(run, values)


def _value_of(text: str) -> Any:
    """Return a value from how MLflow writes it.

    >>> [_value_of(text) for text in ("1e-05", "128", "True", "class_weights", "None")]
    [1e-05, 128, True, 'class_weights', None]
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class _Opened:
    """A study's context that nobody else works in."""

    study: StudyContext
    leases: Any

    def close(self) -> None:
        self.leases.close()


def _context(prepared: PreparedRun, watcher: Watcher) -> _Opened:
    """The context of the study, with which nothing is recorded."""
    from breakhis_search.training.devices import import_keras

    import_keras()
    from breakhis_search.study.leases import Leases
    from breakhis_search.tracking.delivery import Delivery
    from breakhis_search.workflow.search import study_context

    leases = Leases(prepared.settings.studies_uri)
    carrier = Delivery(prepared.client, prepared.settings)
    return _Opened(study_context(prepared, watcher, carrier, leases), leases)


def _train(
    recorded: Recorded, context: StudyContext, watcher: Watcher
) -> tuple[dict[str, float], bool]:
    """The metrics of the trial, trained here."""
    import optuna
    import pandas as pd

    from breakhis_search.evaluation.metrics import compute_metrics, epoch_score
    from breakhis_search.evaluation.own_metrics import compute_own_metrics
    from breakhis_search.study.candidate import build_candidate, trainer_of, training_data
    from breakhis_search.study.folds import predictions_of_fold
    from breakhis_search.study.seeding import seed_of
    from breakhis_search.study.stages import in_stage, stages_of
    from breakhis_search.training.timing import Timer

    config = context.config
    stages = {stage.name: stage for stage in stages_of(config)}
    stage = stages.get(recorded.tags.get(keys.STAGE, ""))
    if stage is not None:
        context = in_stage(context, stage)
    context.batch_sizes[recorded.tags[keys.ARCHITECTURE]] = recorded.batch_size
    number = int(recorded.tags[keys.TRIAL_NUMBER])
    trial = optuna.trial.FixedTrial(dict(recorded.values), number=number)
    candidate = build_candidate(trial, context, seed=int(recorded.tags[keys.SEED]))
    trainer = trainer_of(candidate, context, timer=Timer())
    parts = []
    for fold, rows in enumerate(context.split.folds):
        watcher.say(f"training fold {fold + 1} of {len(context.split.folds)}")
        data = training_data(context, rows.train, rows.validation)
        result = trainer.fit(
            data,
            seed=seed_of(candidate.seed, fold),
            epochs=config.training.max_epochs,
            score=lambda y, logits: epoch_score(y, logits, config.objective),
        )
        parts.append(predictions_of_fold(context, fold, data, result))
    table = pd.concat(parts, ignore_index=True)
    metrics = {**compute_metrics(table), **compute_own_metrics(table, config.metrics)}
    return metrics, config.training.deterministic


def _ingredients(recorded: Recorded, context: StudyContext) -> list[Ingredient]:
    """What could make a difference, then and now."""
    weights = context.weights[recorded.tags[keys.ARCHITECTURE]]
    origin = weights.origin + (f" {weights.sha256}" if weights.sha256 else "")
    now = {
        **provenance_tags(),
        keys.WEIGHTS: origin,
        **{
            name: context.tags[name]
            for name in (keys.DATA_FINGERPRINT, keys.SPLIT_DIGEST, keys.DEVICE, keys.PRECISION)
        },
    }
    return [
        Ingredient(name.removeprefix(keys.PREFIX), recorded.tags.get(name, "not recorded"), value)
        for name, value in now.items()
    ]
