"""``status``: what is in the stores, in one look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from breakhis_search.comparison.leaderboard import list_studies
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.settings import Settings
from breakhis_search.study.budget import INTERRUPTED
from breakhis_search.study.storage import open_storage, storage_errors
from breakhis_search.tracking.journal import open_journals
from breakhis_search.tracking.store import open_store, tracking_errors


@dataclass(frozen=True)
class StudyStatus:
    """Trials of a study by state, and its best score.

    Attributes:
        name: Full study name.
        complete: Trials with a score.
        pruned: Trials that were not worth going on.
        failed: Trials that failed for a reason of their own.
        interrupted: Trials that were cut off; they count towards no budget and are queued again.
        running: Trials at work.
        queued: Configurations that wait for a trial.
        objective: What ``best`` is, such as ``auroc``; empty where MLflow does not know the study.
        best: Best score of the search, pooled out-of-fold, by one seed.
        demo: Whether it is about synthetic images.
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


@dataclass(frozen=True)
class Overview:
    """All of it.

    Attributes:
        studies: Every version of every study.
        models: Every registered version.
        undelivered: Runs whose journal holds records that MLflow does not have yet.
    """

    studies: list[StudyStatus]
    models: list[VersionFacts]
    undelivered: int


def read_overview(settings: Settings) -> Overview:
    """Return what the study storage, MLflow and the journal hold."""
    client = open_store(settings)
    storage = open_storage(settings.studies_uri)
    with tracking_errors(settings.tracking_uri):
        # Newest first, and the newest of one name is to win.
        known = {row["study"]: row for row in list_studies(client).to_dict("records")[::-1]}
        versions = client.search_model_versions()
        aliases = {m.name: m.aliases for m in client.search_registered_models()}
        models = [read_facts(client, v, aliases.get(v.name, {})) for v in versions]
    with storage_errors(settings.studies_uri):
        studies = [
            _study(storage, s, known.get(s.study_name, {})) for s in storage.get_all_studies()
        ]
    return Overview(studies, models, len(open_journals(settings.journal_dir)))


def _study(storage: Any, study: Any, known: Mapping[Any, Any]) -> StudyStatus:
    trials = storage.get_all_trials(study._study_id, deepcopy=False)  # noqa: SLF001 - no public id
    count = Counter(map(_state_of, trials))
    scores = [t.value for t in trials if t.state == TrialState.COMPLETE]
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
    )


def _state_of(trial: FrozenTrial) -> str:
    """Optuna's name of a trial's state; a failure that only was an interruption has its own."""
    return INTERRUPTED if trial.user_attrs.get(INTERRUPTED) else str(trial.state.name)
