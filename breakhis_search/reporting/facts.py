"""Everything that is recorded of a registered version, gathered once for what is written of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import yaml
from mlflow.exceptions import MlflowException

from breakhis_search.comparison.answers import GateAnswer, answers_of
from breakhis_search.comparison.evidence import read_predictions, read_text
from breakhis_search.comparison.gate import GateRules
from breakhis_search.comparison.history import ChampionChange, read_history
from breakhis_search.comparison.leaderboard import read_leaderboard
from breakhis_search.comparison.openings import (
    Opening,
    openings_of,
    predictions_of,
    versions_it_answered_for,
)
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.errors import RegistryError
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.evaluation.thresholds import Thresholds
from breakhis_search.reporting.measured import Measured, measure_out_of_fold, measure_sealed
from breakhis_search.reporting.search_facts import SearchFacts, read_search_facts
from breakhis_search.tracking import keys


@dataclass(frozen=True)
class Facts:
    """What is known of a registered version.

    Attributes:
        version: Name, number, aliases, score, floors.
        registered: When it was registered, UTC.
        tags: Of the version.
        params: Hyperparameters of the selected configuration.
        parameters: Weights of the model; ``None`` where it was not recorded.
        weights: Where its weights started from, in words; may be empty.
        config: The study as it was run (``study.yaml``).
        study_tags: Of the study's own run.
        begun: When the study was begun, UTC.
        board: Its leaderboard when the version was registered: finalists, then search trials.
        search: What its search tried.
        selection: One row per finalist with difference, interval, p and tied; may be empty.
        calibration: That of the version; ``None`` if it has none.
        thresholds: Its locked thresholds; ``None`` if it has none.
        rules: What the gate asks of it.
        history: Every recorded move of the champion's alias of its registered model.
        answers: What the gate answered about it without moving the alias.
        openings: Every opening of the sealed test for it.
        out_of_fold: What its finalist's predictions say.
        sealed: What the sealed test said, if it was opened and its predictions are there.
    """

    version: VersionFacts
    registered: datetime
    tags: Mapping[str, str]
    params: Mapping[str, str]
    parameters: int | None
    weights: str
    config: Mapping[str, Any]
    study_tags: Mapping[str, str]
    begun: datetime | None
    board: pd.DataFrame
    search: SearchFacts
    selection: pd.DataFrame
    calibration: Calibration | None
    thresholds: Thresholds | None
    rules: GateRules
    history: tuple[ChampionChange, ...]
    answers: tuple[GateAnswer, ...]
    openings: tuple[Opening, ...]
    also_opened_for: tuple[str, ...]
    out_of_fold: Measured
    sealed: Measured | None

    @property
    def split_notes(self) -> list[str]:
        """What a reader must know of the split, in words."""
        recorded = self.tags.get(keys.SPLIT_NOTES) or self.study_tags.get(keys.SPLIT_NOTES, "[]")
        notes: list[str] = json.loads(recorded)
        return notes

    @property
    def trials(self) -> pd.DataFrame:
        """The trials of the search."""
        return self.board[self.board["stage"].isin(keys.SEARCH_STAGES)]


def gather_facts(client: Any, version: Any, *, resamples: int = 2000) -> Facts:
    """Return what MLflow holds about a version.

    Args:
        client: An MLflow client.
        version: MLflow's model version.
        resamples: Draws of patients behind the intervals.

    Raises:
        RegistryError: It was registered by something else, or its evidence is gone.
    """
    tags = version.tags
    missing = [key for key in (keys.GATE_RULES, keys.EVIDENCE_RUN, keys.STUDY) if key not in tags]
    if missing:
        raise RegistryError(
            f"version {version.version} of {version.name} says nothing of how it was made",
            expected=f"a version with the tags {', '.join(missing)}",
            remedy="name a version that `run` registered",
        )
    evidence = client.get_run(tags[keys.EVIDENCE_RUN])
    study = _study_run(client, evidence)
    calibration, thresholds = _calibration_of(tags), _thresholds_of(tags)
    table = read_predictions(client, evidence.info.run_id)
    aliases = client.get_registered_model(version.name).aliases
    openings = tuple(openings_of(client, version))
    board = read_leaderboard(
        client, [tags[keys.STUDY]], study_uid=evidence.data.tags.get(keys.STUDY_UID)
    )
    return Facts(
        version=read_facts(client, version, aliases),
        registered=_utc(version.creation_timestamp),
        tags=tags,
        params=evidence.data.params,
        parameters=_parameters(evidence),
        weights=evidence.data.tags.get(keys.WEIGHTS, ""),
        config=_config(client, evidence.info.run_id),
        study_tags={**(study.data.tags if study else {}), **_found_then(tags)},
        begun=_utc(study.info.start_time) if study else None,
        board=board[board["started_ms"] <= version.creation_timestamp].reset_index(drop=True),
        search=read_search_facts(
            client,
            evidence.data.tags.get(keys.STUDY_UID, ""),
            until_ms=version.creation_timestamp,
        ),
        selection=_selection(client, version, study),
        calibration=calibration,
        thresholds=thresholds,
        rules=GateRules.from_json(tags[keys.GATE_RULES]),
        history=tuple(read_history(client, version.name)),
        answers=tuple(answers_of(client, version)),
        openings=openings,
        also_opened_for=_also_opened_for(client, version),
        out_of_fold=measure_out_of_fold(table, calibration, thresholds, resamples=resamples),
        sealed=_sealed(client, version, openings, calibration, thresholds, resamples),
    )


def _also_opened_for(client: Any, version: Any) -> tuple[str, ...]:
    """The other versions that the same sealed test was opened for, in order."""
    digest = version.tags.get(keys.SEALED_DIGEST)
    if not digest:
        return ()
    others = versions_it_answered_for(client, version.name, digest) - {str(version.version)}
    return tuple(sorted(others, key=int))


def _study_run(client: Any, evidence: Any) -> Any | None:
    """The study's own run: the parent of the finalist."""
    parent = evidence.data.tags.get(keys.MLFLOW_PARENT)
    try:
        return client.get_run(parent) if parent else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _calibration_of(tags: Mapping[str, str]) -> Calibration | None:
    text = tags.get(keys.CALIBRATION)
    return Calibration.from_dict(json.loads(text)) if text else None


def _thresholds_of(tags: Mapping[str, str]) -> Thresholds | None:
    text = tags.get(keys.THRESHOLDS)
    return Thresholds.from_dict(json.loads(text)) if text else None


def _parameters(evidence: Any) -> int | None:
    count = evidence.data.metrics.get(keys.METRIC_PARAMETERS)
    return None if count is None else int(count)


def _config(client: Any, run_id: str) -> Mapping[str, Any]:
    text = read_text(client, run_id, keys.ARTIFACT_CONFIG)
    loaded: Mapping[str, Any] = yaml.safe_load(text) if text else {}
    return loaded


def _found_then(tags: Mapping[str, str]) -> dict[str, str]:
    """What was known of the study when the version was registered: it may have gone on since."""
    names = (keys.OPTIMISM, keys.HARD_PATIENTS, keys.LEAK_ALARM)
    return {name: tags[name] for name in names if name in tags}


def _selection(client: Any, version: Any, study: Any | None) -> pd.DataFrame:
    """The tied set: the version's own, or that of the study as it is now."""
    for run_id in (version.run_id, study.info.run_id if study else None):
        if run_id is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = client.download_artifacts(run_id, keys.ARTIFACT_SELECTION, folder)
                return pd.read_csv(file)
            except (MlflowException, OSError):  # an older study: the leaderboard is still there
                pass
    return pd.DataFrame(columns=["trial", "name", "score", "difference", "low", "high", "p_holm"])


def _sealed(
    client: Any,
    version: Any,
    openings: Sequence[Opening],
    calibration: Calibration | None,
    thresholds: Thresholds | None,
    resamples: int,
) -> Measured | None:
    complete = [opening for opening in openings if opening.is_complete]
    if not complete:  # it was never opened, or scoring was cut off: the openings tell
        return None
    try:
        table = predictions_of(client, version, complete[-1])
    except RegistryError:  # the card is written all the same
        return None
    return measure_sealed(table, calibration, thresholds, resamples=resamples)


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
