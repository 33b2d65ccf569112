"""``replay``: trains a trial again from what MLflow holds of it, and compares. Loads Keras late."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breakhis_search.comparison.named_models import find_model
from breakhis_search.errors import OutOfMemoryFailure, ReplayError
from breakhis_search.settings import Settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.provenance import provenance_tags
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.workflow.preparation import PreparedRun, Watcher, prepare_run
from breakhis_search.workflow.request import RunRequest

if TYPE_CHECKING:
    from breakhis_search.config import StudyConfig
    from breakhis_search.study.candidate import Candidate
    from breakhis_search.study.context import StudyContext
    from breakhis_search.training.results import FoldResult, TrainingData
    from breakhis_search.training.trainer import FoldTrainer

_SETTINGS = ("data/", "training/")
"""Prefixes of params that the study fixes for all its trials."""

_OF_THE_PROCESS = (
    keys.DATA_FINGERPRINT,
    keys.SPLIT_DIGEST,
    keys.DEVICE,
    keys.PRECISION,
    keys.THREADS,
)


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
        missing: Metrics that only one of the two has.
        is_deterministic: Whether the study asks for deterministic operations only.
    """

    run_id: str
    trial: int
    study: str
    ingredients: tuple[Ingredient, ...]
    metrics: Mapping[str, tuple[float, float]]
    missing: tuple[str, ...]
    is_deterministic: bool

    @property
    def is_equal(self) -> bool:
        """Whether there are metrics and all of them are the same, bit by bit."""
        same = all(then == now for then, now in self.metrics.values())
        return same and bool(self.metrics) and not self.missing

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

    @property
    def parts(self) -> int:
        """Each batch was taken in so many."""
        return int(self.tags.get(keys.BATCH_IN_PARTS, "1"))

    @property
    def threads(self) -> int | None:
        """That shared an operation on the CPU, if this was recorded."""
        text = self.tags.get(keys.THREADS)
        return int(text) if text else None


def trial_run(study: str, trial: int, settings: Settings) -> str:
    """Return the id of the run of a complete trial of a search.

    Raises:
        TrackingError: There is no such study.
        ComparisonError: It has no such trial.
    """
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        return find_model(client, study, str(trial), kinds=("trial",)).run_id


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
        ReplayError: The run is no complete trial of a search, or holds no metrics of one.
        BreakhisSearchError: Data, weights or stores cannot be used.
    """
    client = read_store(settings)
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
    with closing(_context(prepared, watcher, threads=recorded.threads)) as context:
        trained = _train(recorded, context.study, watcher)
        ingredients = _ingredients(recorded, context.study, parts=trained.parts)
    metrics, missing = hold_against(recorded.run.data.metrics, trained.metrics)
    return Replayed(
        run_id=run_id,
        trial=int(recorded.tags[keys.TRIAL_NUMBER]),
        study=recorded.tags[keys.STUDY],
        ingredients=tuple(ingredients),
        metrics=metrics,
        missing=missing,
        is_deterministic=prepared.resolved.config.training.deterministic,
    )


def hold_against(
    then: Mapping[str, float], now: Mapping[str, float]
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Return name → (then, now) of the metrics, and the names that only one side has.

    Args:
        then: All that a run holds, durations and losses of epochs among them.
        now: Metrics of predictions, such as ``image/auroc``.

    Raises:
        ReplayError: They have none in common, so nothing is compared.

    >>> hold_against({"image/auroc": 0.8, "image/nll": 0.6, "seconds/fit": 3}, {"image/auroc": 0.8})
    ({'image/auroc': (0.8, 0.8)}, ('image/nll',))
    """
    kinds = {name.split("/")[0] for name in now}
    recorded = {name for name in then if name.split("/")[0] in kinds}
    both = {name: (then[name], value) for name, value in now.items() if name in recorded}
    if not both:
        raise ReplayError(
            "the run holds no metric of its predictions",
            expected="metrics such as " + ", ".join(sorted(now)[:3]),
            received=f"{len(then)} others",
            remedy="nothing can be compared: replay another trial",
        )
    return both, tuple(sorted(recorded ^ set(now)))


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
        raise _not_replayable(run_id, tags)
    values = {
        name: _value_of(text)
        for name, text in run.data.params.items()
        if not name.startswith(_SETTINGS)
    }
    return Recorded(run, values)


def _not_replayable(run_id: str, tags: Mapping[str, str]) -> ReplayError:
    """The error for a run that is no complete trial, with the one to take instead."""
    role, state, study = tags.get(keys.ROLE), tags.get(keys.STATE), tags.get(keys.STUDY)
    same = tags.get(keys.SAME_AS)
    if role in (keys.ROLE_FINALIST, keys.ROLE_REFIT):
        number = tags.get(keys.TRIAL_NUMBER)
        remedy = f"replay the trial that it is trained from: --study {study} --trial {number}"
    elif role == keys.ROLE_TRIAL and same:
        remedy = f"replay the trial whose result it has: --study {study} --trial {same}"
    else:
        remedy = "name a complete trial: `compare --study NAME` lists them"
    return ReplayError(
        f"run {run_id} cannot be replayed",
        expected="a complete trial of a search",
        received=f"role {role}, state {state}" if role else "a run of another program",
        remedy=remedy,
    )


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


def _context(prepared: PreparedRun, watcher: Watcher, *, threads: int | None) -> _Opened:
    """The context of the study, with which nothing is recorded, and as many threads as then."""
    from breakhis_search.training.devices import import_keras
    from breakhis_search.training.threads import use_threads

    keras = import_keras()
    if threads is not None:
        use_threads(keras.backend.backend(), threads)
    from breakhis_search.study.leases import Leases
    from breakhis_search.tracking.delivery import Delivery
    from breakhis_search.workflow.search import study_context

    leases = Leases(prepared.settings.studies_uri)
    carrier = Delivery(prepared.client, prepared.settings)
    return _Opened(study_context(prepared, watcher, carrier, leases), leases)


@dataclass(frozen=True)
class _Trained:
    """What training a trial again came to.

    Attributes:
        metrics: Of the pooled out-of-fold predictions.
        parts: Each batch was taken in so many.
    """

    metrics: dict[str, float]
    parts: int


def _train(recorded: Recorded, context: StudyContext, watcher: Watcher) -> _Trained:
    """Train the trial's folds here."""
    import pandas as pd

    from breakhis_search.evaluation.metrics import compute_metrics
    from breakhis_search.evaluation.own_metrics import compute_own_metrics
    from breakhis_search.study.candidate import trainer_of, training_data
    from breakhis_search.study.folds import predictions_of_fold
    from breakhis_search.study.seeding import seed_of
    from breakhis_search.training.timing import Timer

    context = _in_stage_of(recorded, context)
    candidate = _candidate(recorded, context)
    trainer = trainer_of(candidate, context, timer=Timer())
    while trainer.parts < recorded.parts and trainer.take_smaller_parts():
        pass
    tables = []
    for fold, rows in enumerate(context.split.folds):
        watcher.say(f"training fold {fold + 1} of {len(context.split.folds)}")
        data = training_data(context, rows.train, rows.validation)
        result = _fit(trainer, data, context.config, seed=seed_of(candidate.seed, fold))
        tables.append(predictions_of_fold(context, fold, data, result))
    table = pd.concat(tables, ignore_index=True)
    metrics = {**compute_metrics(table), **compute_own_metrics(table, context.config.metrics)}
    return _Trained(metrics, trainer.parts)


def _in_stage_of(recorded: Recorded, context: StudyContext) -> StudyContext:
    """The context as it was in the stage that the trial was searched in."""
    from breakhis_search.study.stages import in_stage, stages_of

    stages = {stage.name: stage for stage in stages_of(context.config)}
    stage = stages.get(recorded.tags.get(keys.STAGE, ""))
    return context if stage is None else in_stage(context, stage)


def _candidate(recorded: Recorded, context: StudyContext) -> Candidate:
    """The trial's configuration with a model."""
    import optuna

    from breakhis_search.study.candidate import build_candidate

    context.batch_sizes[recorded.tags[keys.ARCHITECTURE]] = recorded.batch_size
    number = int(recorded.tags[keys.TRIAL_NUMBER])
    trial = optuna.trial.FixedTrial(dict(recorded.values), number=number)
    return build_candidate(trial, context, seed=int(recorded.tags[keys.SEED]))


def _fit(trainer: FoldTrainer, data: TrainingData, config: StudyConfig, *, seed: int) -> FoldResult:
    """Train a fold; in smaller parts where this machine has less memory than the trial's had."""
    from breakhis_search.evaluation.metrics import epoch_score

    while True:
        try:
            return trainer.fit(
                data,
                seed=seed,
                epochs=config.training.max_epochs,
                score=lambda y, logits: epoch_score(y, logits, config.objective),
            )
        except OutOfMemoryFailure:
            if not trainer.take_smaller_parts():
                raise


def _ingredients(recorded: Recorded, context: StudyContext, *, parts: int) -> list[Ingredient]:
    """What could make a difference, then and now."""
    weights = context.weights[recorded.tags[keys.ARCHITECTURE]]
    origin = weights.origin + (f" {weights.sha256}" if weights.sha256 else "")
    now = {
        **provenance_tags(),
        keys.WEIGHTS: origin,
        **{name: context.tags[name] for name in _OF_THE_PROCESS},
        keys.BATCH_IN_PARTS: str(parts),
    }
    then = {keys.BATCH_IN_PARTS: "1", **recorded.tags}  # a trial that took them whole has no tag
    return [
        Ingredient(name.removeprefix(keys.PREFIX), then.get(name, "not recorded"), value)
        for name, value in now.items()
    ]
