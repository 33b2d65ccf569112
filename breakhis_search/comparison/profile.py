"""Where the time of a study went: seconds of every run by phase, read from MLflow alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from breakhis_search.tracking import keys
from breakhis_search.tracking.stored_runs import StoredRun, read_runs

OTHER, BESIDE = "other", "pages (beside)"
PHASES = {
    "import": "importing Keras, finding the device; told by the first run of each worker",
    "data": "decoding the images, or opening what is decoded; told in the same way",
    "ask": "asking the sampler for hyperparameters",
    "build": "building the model, or taking one over; on a GPU also finding its batch size",
    "features": "asking a frozen backbone about images",
    "trace": "setting up a training step; tracing and compiling it where no trial has yet",
    "train": "training steps, with their input",
    "validate": "predictions after every epoch",
    "checkpoint": "copying where a fold stands, which a thread then writes",
    "evaluate": "scores",
    "analyse": "calibration and explanations of a finalist",
    "calibrate": "temperature and thresholds",
    "model": "saving the model",
    "package": "packaging the classifier",
    "verify": "the check in a fresh process",
    "logging": "writing journal, predictions and models to the disk, until they are there",
    OTHER: "all else",
    BESIDE: "figures and intervals of a trial, by another process while the next ones train",
}
"""Every phase and what it is, in the order of a trial."""

_BEFORE = ("import", "data", "ask")
"""What comes before a trial begins, and is no part of its total."""


def read_profile(client: Any, study: str, study_uid: str) -> pd.DataFrame:
    """Return the seconds of every run of a study, in the order in which they began.

    Args:
        client: An MLflow client.
        study: Full study name.
        study_uid: Identity of this very study.

    Returns:
        Columns ``run`` (such as ``trial 7``), ``role``, and one of seconds for every phase of
        :data:`PHASES` that any run spent time in.
    """
    tags = {keys.STUDY: study, keys.STUDY_UID: study_uid}
    runs = read_runs(client, tags, metrics=(keys.SECONDS,))
    runs.sort(key=lambda run: run.started_ms)
    rows = [row for run in runs if (row := _row(run, study))]
    phases = [phase for phase in PHASES if any(phase in row for row in rows)]
    return pd.DataFrame(rows, columns=["run", "role", *phases]).fillna(dict.fromkeys(phases, 0.0))


def _row(run: StoredRun, study: str) -> dict[str, Any]:
    """The seconds of one run; nothing where it did not come to say."""
    seconds = {
        name.removeprefix(keys.SECONDS): value
        for name, value in run.metrics.items()
        if name.startswith(keys.SECONDS)
    }
    figures = seconds.pop("figures", None)
    total = seconds.pop("total", sum(seconds.values()))
    if not seconds:
        return {}
    known = {phase: value for phase, value in seconds.items() if phase in PHASES}
    within = sum(value for phase, value in known.items() if phase not in _BEFORE)
    known[OTHER] = max(0.0, total - within)
    if figures is not None:
        known[BESIDE] = figures
    name = run.name.removeprefix(study).strip() or "study"
    return {"run": name, "role": run.tags.get(keys.ROLE, ""), **known}


def medians(profile: pd.DataFrame) -> pd.DataFrame:
    """Return the median seconds of each phase over the trials of the search, and their sum.

    Args:
        profile: From :func:`read_profile`.

    Returns:
        One row per phase: ``phase``, ``median``, ``total``, ``what``.
    """
    trials = profile[profile["role"] == keys.ROLE_TRIAL]
    phases = [phase for phase in PHASES if phase in profile.columns and trials[phase].any()]
    rows = [
        {
            "phase": phase,
            "median": float(trials[phase].median()),
            "total": float(trials[phase].sum()),
            "what": PHASES[phase],
        }
        for phase in phases
    ]
    return pd.DataFrame(rows, columns=["phase", "median", "total", "what"])
