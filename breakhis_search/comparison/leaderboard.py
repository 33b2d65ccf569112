"""The ranking of trials, read from MLflow alone."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.data.taxonomy import MAGNIFICATIONS
from breakhis_search.errors import RegistryError, TrackingError
from breakhis_search.evaluation.own_metrics import OWN
from breakhis_search.study_file import study_name
from breakhis_search.tracking import keys
from breakhis_search.tracking.stored_runs import StoredRun, read_runs
from breakhis_search.wording import how_to_run

COLUMNS = (
    "rank",
    "study",
    "trial",
    "stage",
    "state",
    "architecture",
    "sampling",
    "score",
    "patient_score",
    "score_low",  # ends of the 95 % intervals over patients, where there are any
    "score_high",
    "patient_score_low",
    "patient_score_high",
    "nll",
    "parameters",
    "seconds",
    "reason",
    "split_digest",
    "leaky",
    "study_uid",
    "started_ms",
    "run_id",
)

_STUDY_COLUMNS = (
    "study",
    "study_uid",
    "task",
    "objective",
    "selection_rules",
    "finalists",
    "optimism",
    "hard_patients",
    "leak_alarm",
    "demo",
    "state",
    "started_ms",
    "run_id",
)

_METRICS = (
    f"{keys.METRIC_OBJECTIVE}/",
    f"{keys.METRIC_INTERVAL}/",
    "patient/",
    "image/nll",
    keys.METRIC_PARAMETERS,
    f"{keys.SECONDS}total",
    OWN,
)
"""What the metrics begin with that become columns."""

_SCORED = ("complete", "reused")
"""States whose scores are final. A run has its scores a moment before its end is recorded, and may
yet be cut off and go on: no score stands beside ``running``."""

_OF_ANY_STATE = (keys.METRIC_PARAMETERS, keys.SECONDS)
"""What the metrics begin with that say how a run went."""


def list_studies(client: Any) -> pd.DataFrame:
    """Return the studies in the store and what was found of each, newest first."""
    runs = read_runs(client, {keys.ROLE: keys.ROLE_STUDY})
    rows = [
        {
            "study": run.tags.get(keys.STUDY, ""),
            "study_uid": run.tags.get(keys.STUDY_UID, ""),
            "task": run.tags.get(keys.TASK, ""),
            "objective": run.tags.get(keys.OBJECTIVE, ""),
            "selection_rules": run.tags.get(keys.SELECTION_RULES, "{}"),
            "finalists": run.tags.get(keys.FINALISTS, ""),
            "optimism": run.tags.get(keys.OPTIMISM, ""),
            "hard_patients": run.tags.get(keys.HARD_PATIENTS, ""),
            "leak_alarm": run.tags.get(keys.LEAK_ALARM, ""),
            "demo": run.tags.get(keys.DEMO) == "true",
            "state": run.status,
            "started_ms": run.started_ms,
            "run_id": run.run_id,
        }
        for run in runs
    ]
    frame = pd.DataFrame(rows, columns=list(_STUDY_COLUMNS))
    return frame.sort_values("started_ms", ascending=False).reset_index(drop=True)


def newest_studies(client: Any) -> dict[str, dict[Any, Any]]:
    """Return the rows of :func:`list_studies` by full name; of several of one name the newest."""
    return {row["study"]: row for row in reversed(list_studies(client).to_dict("records"))}


def find_studies(client: Any, names: Sequence[str]) -> list[dict[Any, Any]]:
    """Return the rows of :func:`list_studies` that are meant, each once.

    Args:
        client: An MLflow client.
        names: Names, or paths of study files; one without a version means its newest one.

    Raises:
        TrackingError: The store has no such study; those it has are named.
        ConfigError: There is no such file.
    """
    studies = newest_studies(client)
    known = list(studies)[::-1]  # the newest first
    resolved = []
    for name in map(study_name, names):
        matches = [s for s in known if s == name or s.rpartition("@v")[0] == name]
        if not matches:
            base = name.partition("@")[0]
            near = next(iter(difflib.get_close_matches(name, known, n=1)), None)
            demo = [s for s in known if s.rpartition("@v")[0] == f"{base}-demo"]
            raise TrackingError(
                f"no study {name!r} in the MLflow store",
                expected=f"one of {', '.join(known)}" if known else "a study that has run",
                remedy=f"--study {base}-demo is its run on the demo"
                if demo
                else f"did you mean {near}?"
                if near
                else "run it first: "
                + how_to_run(base.removesuffix("-demo"), demo=base.endswith("-demo")),
            )
        resolved.append(max(matches, key=_version_of))
    return [studies[name] for name in dict.fromkeys(resolved)]


def registered_names_of(client: Any, names: Sequence[str]) -> list[str]:
    """Return the registered models the winners of studies go to.

    Raises:
        TrackingError: The store has no such study.
    """
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    full_names = {study["study"] for study in find_studies(client, names)}
    runs = read_runs(client, {keys.ROLE: keys.ROLE_STUDY})
    found = [experiments[r.experiment_id] for r in runs if r.tags.get(keys.STUDY) in full_names]
    return list(dict.fromkeys(found))  # winners are registered under their experiment's name


def _version_of(name: str) -> int:
    number = name.rpartition("@v")[2]
    return int(number) if number.isdigit() else 0


def read_leaderboard(
    client: Any, studies: Sequence[str], *, study_uid: str | None = None
) -> pd.DataFrame:
    """Return the finalists of the studies, ranked, and below them the trials of their search.

    Only finalists have a rank: they were trained on several seeds for a number of epochs fixed
    beforehand, while a search trial is one seed, stopped where it scored best. The order goes by
    the pooled out-of-fold objective (of finalists, its mean over seeds), then the smaller negative
    log-likelihood, then the trial number. Columns: :data:`COLUMNS`, and one for each metric of the
    user's own (``own/image/…``, ``own/patient/…``).

    Args:
        client: An MLflow client.
        studies: Full study names.
        study_uid: Keep only runs of this very study: one server may hold two of one name.
    """
    return rank_trials(read_trials(client, studies), study_uid=study_uid)


def read_trials(client: Any, studies: Sequence[str]) -> pd.DataFrame:
    """Return a row for every finalist and search trial of the studies, in no order, unranked.

    Args:
        client: An MLflow client.
        studies: Full study names.
    """
    rows = [
        _row(run)
        for study in studies
        for role in (keys.ROLE_FINALIST, keys.ROLE_TRIAL)
        for run in read_runs(client, {keys.ROLE: role, keys.STUDY: study}, metrics=_METRICS)
    ]
    own = dict.fromkeys(name for row in rows for name in row if name.startswith(OWN))
    return pd.DataFrame(rows, columns=[*COLUMNS, *own])


def rank_trials(frame: pd.DataFrame, *, study_uid: str | None = None) -> pd.DataFrame:
    """Return what :func:`read_trials` gave as a leaderboard, see :func:`read_leaderboard`.

    Args:
        frame: One row per run.
        study_uid: Keep only runs of this very study.
    """
    if study_uid is not None:
        frame = frame[frame["study_uid"] == study_uid]
    complete = frame["state"] == "complete"
    order, ascending = ["score", "nll", "trial"], [False, True, True]
    scored = frame[complete].sort_values(order, ascending=ascending, kind="stable")
    is_finalist = scored["stage"] == keys.STAGE_FINALISTS
    # A finalist that was trained again (more seeds) counts as it is now.
    finalists = scored[is_finalist].sort_values("started_ms", kind="stable", ascending=False)
    finalists = finalists.drop_duplicates(["study_uid", "trial"])
    finalists = finalists.sort_values(order, ascending=ascending, kind="stable")
    finalists["rank"] = range(1, len(finalists) + 1)
    is_search = frame["stage"].isin(keys.SEARCH_STAGES)
    rest = frame[~complete & is_search].sort_values(["study", "trial"])
    parts = [part for part in (finalists, scored[~is_finalist], rest) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else frame


def finalists_of(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the ranked rows of a leaderboard."""
    return leaderboard[leaderboard["rank"].notna()].reset_index(drop=True)


def only_finalists(leaderboard: pd.DataFrame, run_ids: Sequence[str]) -> pd.DataFrame:
    """Return a leaderboard without finalists other than these runs, ranked anew.

    A study that goes on finds better configurations, which take the place of earlier finalists.
    """
    is_other = (leaderboard["stage"] == keys.STAGE_FINALISTS) & ~leaderboard["run_id"].isin(run_ids)
    kept = leaderboard[~is_other].reset_index(drop=True)
    ranked = kept["rank"].notna()
    kept.loc[ranked, "rank"] = range(1, int(ranked.sum()) + 1)
    return kept


def search_trials_of(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials of the search, best first."""
    is_search = leaderboard["stage"].isin(keys.SEARCH_STAGES)
    return leaderboard[is_search & (leaderboard["state"] == "complete")].reset_index(drop=True)


def _row(run: StoredRun) -> dict[str, Any]:
    tags = run.tags
    objective, is_scored = tags.get(keys.OBJECTIVE, ""), tags.get(keys.STATE) in _SCORED
    metrics = {k: v for k, v in run.metrics.items() if is_scored or k.startswith(_OF_ANY_STATE)}
    return {
        "rank": None,
        "study": tags.get(keys.STUDY),
        "trial": int(tags.get(keys.TRIAL_NUMBER, -1)),
        "stage": tags.get(keys.STAGE, ""),
        "state": tags.get(keys.STATE),
        "architecture": tags.get(keys.ARCHITECTURE, ""),
        "sampling": tags.get(keys.SAMPLING, ""),
        "score": metrics.get(f"{keys.METRIC_OBJECTIVE}/{objective}"),
        "patient_score": metrics.get(f"patient/{objective}"),
        **{
            f"{prefix}score_{end}": metrics.get(f"{keys.METRIC_INTERVAL}/{level}/{objective}/{end}")
            for prefix, level in (("", "image"), ("patient_", "patient"))
            for end in ("low", "high")
        },
        "nll": metrics.get("image/nll"),
        "parameters": metrics.get(keys.METRIC_PARAMETERS),
        "seconds": metrics.get(f"{keys.SECONDS}total"),
        "reason": tags.get(keys.FAILURE, ""),
        "split_digest": tags.get(keys.SPLIT_DIGEST, ""),
        "leaky": tags.get(keys.LEAKY) == "true",
        "study_uid": tags.get(keys.STUDY_UID, ""),
        "started_ms": run.started_ms,
        "run_id": run.run_id,
        **{name: value for name, value in sorted(metrics.items()) if name.startswith(OWN)},
    }


def best_by(leaderboard: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the best search trial of every value of ``architecture`` or ``sampling``."""
    return search_trials_of(leaderboard).drop_duplicates(column).reset_index(drop=True)


def read_scored_images(client: Any, run_id: str) -> pd.DataFrame | None:
    """Return a row for every image that a run was scored on; ``None`` without its predictions."""
    try:
        return read_predictions(client, run_id).drop_duplicates("image")
    except RegistryError:
        return None


def score_by_magnification(
    client: Any, run_id: str, objective: str, scored: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the objective of one run per magnification, for ``image`` and ``patient`` level.

    A level that does not define it at a magnification (one class only) has no value there.

    Args:
        client: An MLflow client.
        run_id: The run.
        objective: Of its study.
        scored: From :func:`read_scored_images`.

    Returns:
        Columns ``magnification``, ``images``, ``image``, ``patients``, ``patient``: numbers and
        scores of images and of patients.
    """
    metrics = client.get_run(run_id).data.metrics
    images, patients = _counts_by_magnification(scored)
    rows = [
        {
            "magnification": magnification,
            "images": images.get(magnification),
            "image": metrics.get(f"magnification_{magnification}/image/{objective}"),
            "patients": patients.get(magnification),
            "patient": metrics.get(f"magnification_{magnification}/patient/{objective}"),
        }
        for magnification in MAGNIFICATIONS
    ]
    return pd.DataFrame(rows).dropna(subset=["image", "patient"], how="all")


def _counts_by_magnification(
    scored: pd.DataFrame | None,
) -> tuple[dict[Any, int], dict[Any, int]]:
    """Images and patients that a run was scored on; nothing where that is not known."""
    if scored is None:
        return {}, {}
    at = scored.groupby("magnification")
    return at.size().to_dict(), at["accession"].nunique().to_dict()


def shared_names(leaderboard: pd.DataFrame) -> list[str]:
    """Return the names that several different studies in the store go by."""
    uids = leaderboard.groupby("study")["study_uid"].nunique()
    return sorted(str(name) for name in uids.index[uids > 1])


def different_splits(leaderboard: pd.DataFrame) -> bool:
    """Tell whether the trials were scored on different splits, so that scores do not compare."""
    return bool(leaderboard["split_digest"].nunique() > 1)
