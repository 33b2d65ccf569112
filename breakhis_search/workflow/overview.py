"""``status``: what is in the stores, in one look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from breakhis_search.comparison.evidence import read_text
from breakhis_search.comparison.leaderboard import newest_studies
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.config import StudyConfig
from breakhis_search.errors import JournalError, ServerAwayError
from breakhis_search.settings import Settings
from breakhis_search.study.budget import CAUSE, INTERRUPTED, REASON, SECONDS, UID, cause_of
from breakhis_search.study.leases import Leases
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.outlines import outlines_of
from breakhis_search.study.ranking import NLL
from breakhis_search.study.storage import RUN_UID, open_storage, storage_errors
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.journals import journals_set_aside, open_journals
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.workflow.outstanding import (
    Outstanding,
    config_from_text,
    what_is_outstanding,
)


@dataclass(frozen=True)
class StudyStatus:
    """Trials of a study by state, and its best score.

    Attributes:
        name: Full study name.
        complete: Trials with a score.
        pruned: Trials that were not worth going on.
        failed: Trials that failed for a reason of their own.
        interrupted: Trials that were cut off; the next run goes on with them.
        running: Trials at work.
        queued: Configurations that wait for a trial.
        objective: What ``best`` is, such as ``auroc``; empty where MLflow does not know the study.
        best: Best score of the search, pooled out-of-fold, by one seed.
        demo: Whether it is about synthetic images.
        causes: Why trials failed, and how many.
        outstanding: What it still has to do; ``None`` where it came to its end, or that is unknown.
        is_unreadable: Whether it has not come to its end, and MLflow has no study file of it that
            can be read.
    """

    name: str
    complete: int
    pruned: int
    failed: int
    interrupted: int
    running: int
    queued: int
    objective: str
    best: float | None
    demo: bool
    causes: Mapping[str, int] = field(default_factory=dict)
    outstanding: Outstanding | None = None
    is_unreadable: bool = False


@dataclass(frozen=True)
class Waiting:
    """Records that MLflow does not have yet.

    Attributes:
        records: How many.
        oldest: When the oldest was written, in seconds since 1970; ``None`` without any.
    """

    records: int = 0
    oldest: float | None = None


@dataclass(frozen=True)
class Overview:
    """All of it.

    Attributes:
        studies: Every version of every study.
        models: Every registered version.
        undelivered: Runs whose journal holds records that MLflow does not have yet.
        waiting: What waits in them.
        set_aside: Why, by uid, for runs whose records cannot be delivered.
        elsewhere: Records that wait on other machines which see this folder, by their names.
        mlflow_says: Why MLflow could not be asked; ``None`` where it was: models, objectives and
            what is outstanding are unknown then.
    """

    studies: list[StudyStatus]
    models: list[VersionFacts]
    undelivered: int
    waiting: Waiting = field(default_factory=Waiting)
    set_aside: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    mlflow_says: str | None = None


def records_that_wait(journals: Iterable[Journal]) -> Waiting:
    """Count what MLflow does not have yet."""
    times, records = [], 0
    for journal in journals:
        with suppress(JournalError):  # a damaged line: who delivers sets it aside
            for record in journal.undelivered():
                records += 1
                if "time_ms" in record.body:
                    times.append(int(record.body["time_ms"]))
    return Waiting(records, min(times) / 1000 if times else None)


def read_overview(settings: Settings) -> Overview:
    """Return what the study storage, MLflow and the journal hold.

    That a server of MLflow is away costs what it alone knows: records that wait for it and trials
    are looked for all the more then.

    Raises:
        BreakhisSearchError: The study storage cannot be read, or MLflow lets nobody in.
    """
    known: Mapping[str, Mapping[Any, Any]] = {}
    unfinished: Mapping[str, StudyConfig | None] = {}
    models: list[VersionFacts] = []
    mlflow_says = None
    try:
        known, unfinished, models = _of_mlflow(settings)
    except ServerAwayError as error:
        mlflow_says = error.what
    storage = open_storage(settings.studies_uri)
    with storage_errors(settings.studies_uri), closing(Leases(settings.studies_uri)) as leases:
        studies = [
            _study(storage, leases, s, known.get(s.study_name, {}), unfinished)
            for s in storage.get_all_studies()
        ]
    waiting = open_journals(*settings.journal_dirs)
    set_aside = journals_set_aside(*settings.journal_dirs)
    there = {
        machine: records_that_wait(open_journals(folder)).records
        for machine, folder in settings.journals_elsewhere.items()
    }
    elsewhere = {machine: records for machine, records in there.items() if records}
    return Overview(
        studies,
        models,
        len(waiting),
        records_that_wait(waiting),
        set_aside,
        elsewhere,
        mlflow_says,
    )


def _of_mlflow(
    settings: Settings,
) -> tuple[Mapping[str, Mapping[Any, Any]], Mapping[str, StudyConfig | None], list[VersionFacts]]:
    """Studies by name; by uid how those are run that are not at their end; registered versions."""
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        known = newest_studies(client)
        unfinished = {
            row["study_uid"]: config_from_text(
                read_text(client, row["run_id"], keys.ARTIFACT_CONFIG)
            )
            for row in known.values()
            if row["state"] != "FINISHED"
        }
        versions = client.search_model_versions()
        aliases = {m.name: m.aliases for m in client.search_registered_models()}
        facts = [read_facts(client, v, aliases.get(v.name, {})) for v in versions]
    return known, unfinished, facts


def _study(
    storage: Any,
    leases: Leases,
    study: Any,
    known: Mapping[Any, Any],
    unfinished: Mapping[str, StudyConfig | None],
) -> StudyStatus:
    """What is known of a study; ``unfinished``: how those are run that are not at their end."""
    trials = outlines_of(
        storage,
        study._study_id,  # noqa: SLF001 - no public id
        attributes=(UID, INTERRUPTED, REASON, CAUSE, SECONDS, NLL),
    )
    uid, outstanding = str(study.user_attrs.get(RUN_UID)), None
    if (config := unfinished.get(uid)) is not None:
        outstanding = what_is_outstanding(
            config,
            trials,
            study.user_attrs,
            leases,
            lambda trial: storage.get_trial(trial._trial_id).params,  # noqa: SLF001 - no public id
        )
    cut_off = set(cut_off_trials(trials, leases))
    count = Counter(_state_of(trial, is_cut_off=trial.number in cut_off) for trial in trials)
    complete = (t.value for t in trials if t.state == TrialState.COMPLETE)
    scores = [value for value in complete if value is not None]
    return StudyStatus(
        name=study.study_name,
        complete=count["COMPLETE"],
        pruned=count["PRUNED"],
        failed=count["FAIL"],
        interrupted=count[INTERRUPTED],
        running=count["RUNNING"],
        queued=count["WAITING"],
        objective=known.get("objective", ""),
        best=max(scores, default=None),
        demo=bool(known.get("demo", False)),
        causes=Counter(cause_of(t) for t in trials if t.state == TrialState.FAIL),
        outstanding=outstanding,
        is_unreadable=uid in unfinished and config is None,
    )


def _state_of(trial: FrozenTrial, *, is_cut_off: bool) -> str:
    """Optuna's name of a trial's state; what was cut off has its own, which Optuna lacks."""
    ended_by_bug = trial.state.is_finished() and trial.user_attrs.get(INTERRUPTED)
    return INTERRUPTED if is_cut_off or ended_by_bug else str(trial.state.name)
