"""The ranking of trials, read from MLflow alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from breakhis_search.data.taxonomy import MAGNIFICATIONS
from breakhis_search.errors import TrackingError
from breakhis_search.tracking import keys

COLUMNS = (
    "rank",
    "study",
    "trial",
    "state",
    "architecture",
    "sampling",
    "score",
    "patient_score",
    "nll",
    "parameters",
    "seconds",
    "reason",
    "split_digest",
    "leaky",
    "study_uid",
    "run_id",
)


def list_studies(client: Any) -> pd.DataFrame:
    """Return the studies in the store: name, experiment, objective, state, newest first."""
    runs = _search(client, f"tags.`{keys.ROLE}` = 'study'")
    rows = [
        {
            "study": run.data.tags.get(keys.STUDY, ""),
            "task": run.data.tags.get(keys.TASK, ""),
            "objective": run.data.tags.get(keys.OBJECTIVE, ""),
            "state": run.info.status,
            "started_ms": run.info.start_time,
            "run_id": run.info.run_id,
        }
        for run in runs
    ]
    frame = pd.DataFrame(
        rows, columns=["study", "task", "objective", "state", "started_ms", "run_id"]
    )
    return frame.sort_values("started_ms", ascending=False).reset_index(drop=True)


def resolve_studies(client: Any, names: Sequence[str]) -> list[str]:
    """Return full study names; a name without a version means its newest one.

    Raises:
        TrackingError: The store has no such study; those it has are named.
    """
    known = list_studies(client)["study"].tolist()
    resolved = []
    for name in names:
        matches = [s for s in known if s == name or s.rpartition("@v")[0] == name]
        if not matches:
            raise TrackingError(
                f"no study {name!r} in the MLflow store",
                expected=f"one of {', '.join(known)}" if known else "a study that has run",
                remedy=f"run it first: python -m breakhis_search run --study {name.split('@')[0]}",
            )
        resolved.append(max(matches, key=_version_of))
    return list(dict.fromkeys(resolved))


def _version_of(name: str) -> int:
    number = name.rpartition("@v")[2]
    return int(number) if number.isdigit() else 0


def read_leaderboard(
    client: Any, studies: Sequence[str], *, study_uid: str | None = None
) -> pd.DataFrame:
    """Return all trials of the studies, complete ones first and ranked.

    The rank goes by the pooled out-of-fold objective, then the smaller negative log-likelihood,
    then the trial number. Columns: :data:`COLUMNS`; ``rank`` is missing for what did not complete.

    Args:
        client: An MLflow client.
        studies: Full study names.
        study_uid: Keep only trials of this very study: one server may hold two of one name.
    """
    rows = [
        _row(run)
        for study in studies
        for run in _search(
            client, f"tags.`{keys.ROLE}` = 'trial' and tags.`{keys.STUDY}` = '{study}'"
        )
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    if study_uid is not None:
        frame = frame[frame["study_uid"] == study_uid]
    complete = frame["state"] == "complete"
    ranked = frame[complete].sort_values(
        ["score", "nll", "trial"], ascending=[False, True, True], kind="stable"
    )
    ranked["rank"] = range(1, len(ranked) + 1)
    rest = frame[~complete].sort_values(["study", "trial"])
    return pd.concat([ranked, rest] if len(rest) else [ranked], ignore_index=True)


def _search(client: Any, condition: str) -> list[Any]:
    experiments = [
        e.experiment_id for e in client.search_experiments(filter_string="name LIKE 'breakhis-%'")
    ]
    runs: list[Any] = []
    token = None
    while experiments:
        page = client.search_runs(experiments, filter_string=condition, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    return runs


def _row(run: Any) -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    objective = tags.get(keys.OBJECTIVE, "")
    return {
        "rank": None,
        "study": tags.get(keys.STUDY),
        "trial": int(tags.get(keys.TRIAL_NUMBER, -1)),
        "state": tags.get(keys.STATE),
        "architecture": tags.get(keys.ARCHITECTURE, ""),
        "sampling": tags.get(keys.SAMPLING, ""),
        "score": metrics.get(f"{keys.METRIC_OBJECTIVE}/{objective}"),
        "patient_score": metrics.get(f"patient/{objective}"),
        "nll": metrics.get("image/nll"),
        "parameters": metrics.get(keys.METRIC_PARAMETERS),
        "seconds": metrics.get(f"{keys.SECONDS}total"),
        "reason": tags.get(keys.FAILURE, ""),
        "split_digest": tags.get(keys.SPLIT_DIGEST, ""),
        "leaky": tags.get(keys.LEAKY) == "true",
        "study_uid": tags.get(keys.STUDY_UID, ""),
        "run_id": run.info.run_id,
    }


def best_by(leaderboard: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the best complete trial of every value of ``architecture`` or ``sampling``."""
    complete = leaderboard[leaderboard["state"] == "complete"]
    return complete.drop_duplicates(column, keep="first").reset_index(drop=True)


def explain_first(leaderboard: pd.DataFrame, objective: str) -> str:
    """Return in words why the first is first, and by how little."""
    complete = leaderboard[leaderboard["state"] == "complete"]
    if complete.empty:
        return "No trial is complete."
    first = complete.iloc[0]
    text = (
        f"{first['study']} trial {first['trial']} ({first['architecture']}, {first['sampling']})"
        f" has the highest pooled out-of-fold {objective}: {first['score']:.4f}"
    )
    if len(complete) == 1:
        return text + "; no other trial is complete."
    second = complete.iloc[1]
    margin = first["score"] - second["score"]
    if margin == 0:
        return text + f", equal to trial {second['trial']}; the smaller likelihood loss decided."
    return (
        text
        + f", {margin:.4f} above trial {second['trial']}. One seed each: a small lead is noise."
    )


def score_by_magnification(client: Any, run_id: str, objective: str) -> pd.DataFrame:
    """Return the objective of one run per magnification, for ``image`` and ``patient`` level.

    A level that does not define it at a magnification (one class only) has no value there.
    """
    metrics = client.get_run(run_id).data.metrics
    rows = [
        {
            "magnification": magnification,
            "image": metrics.get(f"magnification_{magnification}/image/{objective}"),
            "patient": metrics.get(f"magnification_{magnification}/patient/{objective}"),
        }
        for magnification in MAGNIFICATIONS
    ]
    return pd.DataFrame(rows).dropna(subset=["image", "patient"], how="all")


def shared_names(leaderboard: pd.DataFrame) -> list[str]:
    """Return the names that several different studies in the store go by."""
    uids = leaderboard.groupby("study")["study_uid"].nunique()
    return sorted(str(name) for name in uids.index[uids > 1])


def different_splits(leaderboard: pd.DataFrame) -> bool:
    """Tell whether the trials were scored on different splits, so that scores do not compare."""
    return bool(leaderboard["split_digest"].nunique() > 1)
