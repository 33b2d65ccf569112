"""Every tag, metric and artifact name this project writes to MLflow, once."""

from __future__ import annotations

import uuid
from datetime import datetime

from breakhis_search.data.taxonomy import Task

PREFIX = "breakhis."

TRIAL_UID = PREFIX + "uid"
STUDY = PREFIX + "study"
STUDY_UID = PREFIX + "study_uid"
TASK = PREFIX + "task"
ROLE = PREFIX + "role"  # of a run: the four below; of a logged model: fold | refit
ROLE_STUDY, ROLE_TRIAL, ROLE_FINALIST, ROLE_REFIT = "study", "trial", "finalist", "refit"
STAGE = PREFIX + "stage"
STAGE_SEARCH, STAGE_FINALISTS, STAGE_REFIT = "search", "finalists", "refit"
STAGE_PROBE, STAGE_TUNE = "probe", "tune"  # where a search has two stages
SEARCH_STAGES = (STAGE_SEARCH, STAGE_PROBE, STAGE_TUNE)
STATE = PREFIX + "state"  # running | complete | reused | pruned | failed | interrupted
SAME_AS = PREFIX + "same_as"  # trial number of the same values, whose result was reused
FAILURE = PREFIX + "failure"
BATCH_IN_PARTS = PREFIX + "batch_in_parts"  # each batch was taken in so many, for want of memory
TURN = PREFIX + "turn"  # the how manyeth process was at the run; the latest may write to it
PAGE_FAILED = PREFIX + "page_failed"  # why a run has no page, in words
TRIAL_NUMBER = PREFIX + "trial_number"
SEED = PREFIX + "seed"
ARCHITECTURE = PREFIX + "architecture"
SAMPLING = PREFIX + "sampling"
OBJECTIVE = PREFIX + "objective"
PROTOCOL = PREFIX + "protocol"
FORMULATION = PREFIX + "formulation"  # MSB | MIB | MSM | MIM (Benhammou et al. 2020)
OFFICIAL_LEAKS = PREFIX + "official_leaks"  # patients on both sides of official tests, in words
SPLIT_NOTES = PREFIX + "split_notes"  # what a reader must know of the split, as a JSON list
LEAKY = PREFIX + "leaky"
DEMO = PREFIX + "demo"
MAGNIFICATION = PREFIX + "magnification"
DATA_FOLDER = PREFIX + "data_folder"  # where the images were, on the machine that trained
WEIGHTS_FOLDER = PREFIX + "weights_folder"  # where pretrained weights were, if in a folder given
DATA_FINGERPRINT = PREFIX + "data_fingerprint"
SPLIT_DIGEST = PREFIX + "split_digest"
IMAGES = PREFIX + "images"  # how many a search has, without the sealed test
PATIENTS = PREFIX + "patients"  # whose images these are
SEALED_TEST = PREFIX + "sealed_test"
PROFILE = PREFIX + "profile"
DEVICE = PREFIX + "device"
PRECISION = PREFIX + "precision"
THREADS = PREFIX + "threads"  # that shared an operation on the CPU
WEIGHTS = PREFIX + "weights"
BROKEN_FLOORS = PREFIX + "broken_floors"  # of a registered version, in words
CHAMPION_CHANGE = PREFIX + "champion."  # + number; of a registered model: its history
GATE_RULES = PREFIX + "gate_rules"  # of a version, as JSON
GATE_ANSWER = PREFIX + "gate_answer."  # + unique key; of a version's run: a refusal, as JSON
SELECTED_TRIAL = PREFIX + "selected_trial"  # of a version
EVIDENCE_RUN = PREFIX + "evidence_run"  # of a version: the finalist's run with its predictions
PACKAGE_SHA256 = PREFIX + "package_sha256"  # of a version: of all files of the classifier
MODEL_SHA256 = PREFIX + "model_sha256"  # of a version: of the model.keras inside
SEALED_DIGEST = PREFIX + "sealed_digest"  # of the sealed test's images and classes
WHY_SELECTED = PREFIX + "why_selected"  # of a study and of a version, in words
RECORDS_LOST = PREFIX + "records_lost"  # lines of its journal that could not be read any more
LEAK_ALARM = PREFIX + "leak_alarm"  # of a study: a score that is too good to be true, in words
HARD_PATIENTS = PREFIX + "hard_patients"  # of a study: whom every trial gets wrong, in words
OPTIMISM = PREFIX + "optimism"  # of a study: its best score for having been chosen, in words
FINALISTS = PREFIX + "finalists"  # of a study: the runs its selection was made among, as JSON
SELECTION_RULES = PREFIX + "selection_rules"  # of a study: margin and alpha, as JSON
CALIBRATION = PREFIX + "calibration"  # of a version: prior correction and temperature, as JSON
MODEL_CARD = PREFIX + "model_card"  # of a version: where its card is
THRESHOLDS = PREFIX + "thresholds"  # of a version: locked out-of-fold, as JSON
SEALED_OPENING = PREFIX + "sealed_opening."  # + unique key; of a version: an opening, as JSON
NOT_SEARCHED = PREFIX + "not_searched"  # a foreign model's own optimizer hyperparameters
GIT_COMMIT = PREFIX + "git_commit"
VERSIONS = PREFIX + "version."

MLFLOW_PARENT = "mlflow.parentRunId"
MLFLOW_NOTE = "mlflow.note.content"

METRIC_OBJECTIVE = "objective"
METRIC_INTERVAL = "interval"
METRIC_PARAMETERS = "model/parameters"
METRIC_PEAK_MEMORY = "device/peak_memory_mb"
METRIC_BEST_EPOCH = "epochs/median_best"
SECONDS = "seconds/"
EPOCH = "epoch/"

ARTIFACT_PAGE = "figures/trial.html"
ARTIFACT_MISTAKES = "figures/mistakes.html"
ARTIFACT_GALLERY = "for_report/mistakes_gallery.html"  # a part of that page, no page of its own
ARTIFACT_HISTORY = "figures/history.csv"
ARTIFACT_RELIABILITY = "figures/reliability.csv"
ARTIFACT_REPORT = "report"
ARTIFACT_PREDICTIONS = "predictions/predictions.parquet"
ARTIFACT_SEALED = "sealed_test"
ARTIFACT_CONFIG = "study.yaml"
ARTIFACT_CARD = "paper_trail/model_card.md"
ARTIFACT_DECISIONS = "paper_trail/decision_log.md"
ARTIFACT_SELECTION = "selection/selection.csv"
ARTIFACT_HARD_PATIENTS = "selection/hard_patients.csv"


def experiment_name(task: Task, *, demo: bool) -> str:
    """Return the MLflow experiment of a task.

    >>> experiment_name("binary", demo=True)
    'breakhis-binary-demo'
    """
    return f"breakhis-{task}" + ("-demo" if demo else "")


def registered_name(task: Task, *, demo: bool) -> str:
    """Return the name a task's models are registered under; the demo keeps to a name of its own."""
    return experiment_name(task, demo=demo)


def unique_key(when: datetime) -> str:
    """Return an end for a tag's name that sorts by time and that no other process chooses."""
    return f"{when:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
