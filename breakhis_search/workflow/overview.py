"""``status``: what is in the stores, in one look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from breakhis_search.settings import Settings
from breakhis_search.study.storage import open_storage, storage_errors
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import open_journals
from breakhis_search.tracking.store import open_store, tracking_errors


@dataclass(frozen=True)
class StudyStatus:
    """Trials of a study by state, and its best score."""

    name: str
    complete: int
    pruned: int
    failed: int
    running: int
    queued: int
    best: float | None


@dataclass(frozen=True)
class ModelStatus:
    """One registered version."""

    name: str
    version: str
    aliases: str
    study: str
    score: str


@dataclass(frozen=True)
class Overview:
    """All of it.

    Attributes:
        studies: Every version of every study.
        models: Every registered version.
        undelivered: Runs whose journal holds records that MLflow does not have yet.
    """

    studies: list[StudyStatus]
    models: list[ModelStatus]
    undelivered: int


def read_overview(settings: Settings) -> Overview:
    """Return what the study storage, MLflow and the journal hold."""
    client = open_store(settings)
    storage = open_storage(settings.studies_uri)
    with storage_errors(settings.studies_uri):
        studies = [_study(storage, s) for s in storage.get_all_studies()]
    with tracking_errors(settings.tracking_uri):
        versions = client.search_model_versions()
        aliases = {m.name: m.aliases for m in client.search_registered_models()}
    models = [_model(v, aliases.get(v.name, {})) for v in versions]
    return Overview(studies, models, len(open_journals(settings.journal_dir)))


def _study(storage: Any, study: Any) -> StudyStatus:
    trials = storage.get_all_trials(study._study_id, deepcopy=False)  # noqa: SLF001 - no public id
    count = {s: sum(t.state == s for t in trials) for s in TrialState}
    scores = [t.value for t in trials if t.state == TrialState.COMPLETE]
    return StudyStatus(
        name=study.study_name,
        complete=count[TrialState.COMPLETE],
        pruned=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        running=count[TrialState.RUNNING],
        queued=count[TrialState.WAITING],
        best=max(scores, default=None),
    )


def _model(version: Any, aliases: dict[str, str]) -> ModelStatus:
    own = [a for a, v in aliases.items() if str(v) == str(version.version)]
    return ModelStatus(
        name=version.name,
        version=str(version.version),
        aliases=", ".join(own),
        study=version.tags.get(keys.STUDY, ""),
        score=version.tags.get("score_out_of_fold", ""),
    )
