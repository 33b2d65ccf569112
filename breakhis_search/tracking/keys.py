"""Every tag, metric and artifact name this project writes to MLflow, once."""

from __future__ import annotations

from breakhis_search.data.taxonomy import Task

PREFIX = "breakhis."

TRIAL_UID = PREFIX + "uid"
STUDY = PREFIX + "study"
STUDY_UID = PREFIX + "study_uid"
TASK = PREFIX + "task"
ROLE = PREFIX + "role"  # study | trial | refit; of a logged model: fold | refit
STAGE = PREFIX + "stage"
STATE = PREFIX + "state"  # running | complete | pruned | failed | interrupted
FAILURE = PREFIX + "failure"
TRIAL_NUMBER = PREFIX + "trial_number"
SEED = PREFIX + "seed"
ARCHITECTURE = PREFIX + "architecture"
SAMPLING = PREFIX + "sampling"
OBJECTIVE = PREFIX + "objective"
PROTOCOL = PREFIX + "protocol"
LEAKY = PREFIX + "leaky"
DEMO = PREFIX + "demo"
MAGNIFICATION = PREFIX + "magnification"
DATA_FINGERPRINT = PREFIX + "data_fingerprint"
SPLIT_DIGEST = PREFIX + "split_digest"
SEALED_TEST = PREFIX + "sealed_test"
PROFILE = PREFIX + "profile"
DEVICE = PREFIX + "device"
PRECISION = PREFIX + "precision"
WEIGHTS = PREFIX + "weights"
BROKEN_FLOORS = PREFIX + "broken_floors"  # of a registered version, in words
NOT_SEARCHED = PREFIX + "not_searched"  # a foreign model's own optimizer hyperparameters
GIT_COMMIT = PREFIX + "git_commit"
VERSIONS = PREFIX + "version."

MLFLOW_PARENT = "mlflow.parentRunId"
MLFLOW_NOTE = "mlflow.note.content"

METRIC_OBJECTIVE = "objective"
METRIC_PARAMETERS = "model/parameters"
METRIC_PEAK_MEMORY = "device/peak_memory_mb"
METRIC_BEST_EPOCH = "epochs/median_best"
SECONDS = "seconds/"
EPOCH = "epoch/"

ARTIFACT_PAGE = "figures/trial.html"
ARTIFACT_PREDICTIONS = "predictions/predictions.parquet"
ARTIFACT_CONFIG = "study.yaml"


def experiment_name(task: Task, *, demo: bool) -> str:
    """Return the MLflow experiment of a task.

    >>> experiment_name("binary", demo=True)
    'breakhis-binary-demo'
    """
    return f"breakhis-{task}" + ("-demo" if demo else "")


def registered_name(task: Task, *, demo: bool) -> str:
    """Return the name a task's models are registered under; the demo keeps to a name of its own."""
    return experiment_name(task, demo=demo)
