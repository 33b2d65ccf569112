"""``report``: everything a study found, gathered from both stores into one page."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial

from breakhis_search.comparison.answers import answers_of
from breakhis_search.comparison.evidence import read_predictions, read_text
from breakhis_search.comparison.history import read_history
from breakhis_search.comparison.leaderboard import find_studies, search_trials_of
from breakhis_search.comparison.profile import read_profile
from breakhis_search.config import SearchConfig
from breakhis_search.errors import TrackingError
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.evaluation.intervals import bootstrap_intervals
from breakhis_search.evaluation.mistakes_page import GALLERY_STYLE
from breakhis_search.evaluation.thresholds import Thresholds
from breakhis_search.reporting.formulation import formulation_in_words
from breakhis_search.reporting.search_cost import cost_of
from breakhis_search.reporting.search_space import has_backbones, searched_space
from breakhis_search.reporting.stored_html import without_scripts
from breakhis_search.reporting.study_report import StudyFacts, report_html, report_markdown
from breakhis_search.reporting.winner_sections import Winner
from breakhis_search.settings import Settings
from breakhis_search.study.budget import budget_in_words, reason_to_stop
from breakhis_search.study.storage import trials_of
from breakhis_search.tracking import keys
from breakhis_search.tracking.journals import open_journals
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.wording import counted
from breakhis_search.workflow.comparison import JudgedStudy, compare_studies
from breakhis_search.workflow.overview import records_that_wait

Say = Callable[[str], None]

_CURVES = 3
"""So many of the best trials have learning curves in the report."""

_FACTS = {
    "Task": keys.TASK,
    "Protocol": keys.PROTOCOL,
    "Formulation": keys.FORMULATION,
    "Magnification": keys.MAGNIFICATION,
    "Sealed test": keys.SEALED_TEST,
    "Data": keys.DATA_FINGERPRINT,
    "Split": keys.SPLIT_DIGEST,
    "Profile": keys.PROFILE,
    "Device": keys.DEVICE,
    "Precision": keys.PRECISION,
    "Commit": keys.GIT_COMMIT,
}


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        study: Full study name.
        page: The HTML file.
        text: The Markdown file beside it.
        is_demo: Whether it is about synthetic images.
    """

    study: str
    page: Path
    text: Path
    is_demo: bool


def write_report(
    study: str, settings: Settings, *, out: Path | None, say: Say, made: datetime | None = None
) -> Report:
    """Write the report of a study, and keep it with the study's own run in MLflow.

    Args:
        study: Name, with or without its version.
        settings: Where things are.
        out: The HTML file, or the Markdown file beside it; by default in ``mlruns/reports``.
        say: Told what is done, and what could not be.
        made: When, UTC, as the report says; by default now.

    Raises:
        TrackingError: There is no such study, or a file cannot be written.
    """
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        [known] = find_studies(client, [study])
        name = known["study"]
        say(f"gathering {name}")
        facts = _gather(client, settings, name, known, made or datetime.now(UTC))
    page = out or settings.state_dir / "reports" / f"{name}.html"
    if page.suffix.lower() == ".md":  # the twin's name
        page = page.with_suffix(".html")
    text = page.with_suffix(".md")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(report_html(facts), encoding="utf-8")
        text.write_text(report_markdown(facts), encoding="utf-8")
    except OSError as error:
        raise TrackingError(
            f"{page} cannot be written ({error.strerror})", remedy="name another file with --out"
        ) from error
    with tracking_errors(settings.tracking_uri):
        for file in (page, text):
            client.log_artifact(known["run_id"], str(file), keys.ARTIFACT_REPORT)
    return Report(name, page, text, facts.is_demo)


def _gather(
    client: Any, settings: Settings, name: str, known: Mapping[Any, Any], made: datetime
) -> StudyFacts:
    judged = compare_studies(client, [name]).studies[0]
    run = client.get_run(known["run_id"])
    trials, stopped = trials_of(settings.studies_uri, name, known["study_uid"])
    best = search_trials_of(judged.trials)
    config = yaml.safe_load(read_text(client, known["run_id"], keys.ARTIFACT_CONFIG) or "{}")
    profile = read_profile(client, name, known["study_uid"])
    return StudyFacts(
        name=name,
        made=made,
        objective=judged.objective,
        is_demo=judged.is_demo,
        is_leaky=run.data.tags.get(keys.LEAKY) == "true",
        facts=_facts(run.data.tags, judged),
        trials=trials,
        board=judged.trials,
        patients=judged.patients_in_words if judged.patients else "",
        finalists=judged.finalists,
        searched=_searched(config, trials),
        why_ended=_why_ended(trials, config, stopped),
        why_selected=judged.why,
        notes=[*_verdicts(client, judged), *_notes(judged), *_not_delivered(settings, name)],
        winner=_winner(client, judged),
        histories={
            f"trial {int(row['trial'])} ({row['architecture']})": _history(client, row["run_id"])
            for row in best.head(_CURVES).to_dict("records")
        },
        cost=cost_of(trials, profile),
        decisions=_decisions(client, judged),
        reproduce=_reproduce(name, run.data.tags, judged),
    )


def _searched(config: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> dict[str, str]:
    """What the study file fixes, section by section, and what was searched."""
    found: dict[str, str] = {}
    for section in ("data", "protocol", "model", "training", "stages", "search", "finalists"):
        settings = config.get(section)
        if section == "model" and settings and not has_backbones(config):
            # Only a pretrained network has weights to start from.
            settings = {name: value for name, value in settings.items() if name != "weights"}
        if told := _in_words(settings or {}):
            found[section] = told
    return found | searched_space(config, trials)


def _in_words(value: Any) -> str:
    """Return a value of a study file as people read it.

    >>> _in_words(["none", "oversample"])
    'none, oversample'
    >>> _in_words({"folds": 3, "deterministic": False, "arguments": {}})
    'folds 3, deterministic no'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = {k: _in_words(v) for k, v in value.items() if v not in (None, {}, [])}
        return ", ".join(f"{name} {part}" for name, part in parts.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_in_words(part) for part in value)
    return str(value)


def _verdicts(client: Any, judged: JudgedStudy) -> list[str]:
    """What the gate answered about the versions of the study, the last word first."""
    found = []
    for version in judged.registered:
        registered = client.get_model_version(version.name, version.version)
        found += [
            (answer.when, f"version {answer.version} was {answer.action}: {answer.why}")
            for answer in answers_of(client, registered)
        ]
        found += [
            (change.when, f"version {change.version} was {change.action}: {change.why}")
            for change in read_history(client, version.name)
            if change.version == version.version
        ]
    newest_first = sorted(found, reverse=True)
    return list(dict.fromkeys(f"The gate on {when[:10]}: {what}." for when, what in newest_first))


def _facts(tags: Mapping[str, str], judged: JudgedStudy) -> dict[str, str]:
    found = {label: tags[key] for label, key in _FACTS.items() if tags.get(key)}
    if "Formulation" in found:
        found["Formulation"] = formulation_in_words(found["Formulation"])
    notes = json.loads(tags.get(keys.SPLIT_NOTES, "[]"))
    versions = [version.in_words().replace("`", "") for version in judged.registered]
    return {
        **found,
        **({"Split notes": "; ".join(notes)} if notes else {}),
        **({"Registered": " | ".join(versions)} if versions else {}),
    }


def _why_ended(trials: Sequence[FrozenTrial], config: Mapping[str, Any], stopped: str) -> str:
    if not trials:
        return "Its trials are in another study storage (BREAKHIS_STUDIES_URI), or there are none."
    search = SearchConfig(**config.get("search", {}))
    done = budget_in_words(trials, budget=search.trials)
    reason = reason_to_stop(trials, search) or stopped
    return f"{done}; the search ended because {reason}." if reason else f"{done}."


def _notes(judged: JudgedStudy) -> list[str]:
    found = [
        f"Best of the search by one seed: {judged.optimism}." if judged.optimism else "",
        f"Patients: {judged.hard_patients}" if judged.hard_patients else "",
        f"LEAK ALARM: {judged.leak_alarm}" if judged.leak_alarm else "",
    ]
    remarks = [remark for version in judged.registered for remark in version.remarks]
    return [note for note in (*found, *remarks) if note]


def _not_delivered(settings: Settings, study: str) -> Iterator[str]:
    own = [
        j for j in open_journals(*settings.journal_dirs) if j.first_tags.get(keys.STUDY) == study
    ]
    waiting = records_that_wait(own).records
    if waiting:
        yield (
            f"Not in MLflow yet, and so not in this report: {counted(waiting, 'record')} of this"
            " study. A run that is at work brings them there, else status --deliver."
        )


def _winner(client: Any, judged: JudgedStudy) -> Winner | None:
    """The selected finalist, calibrated as the version that was registered of it."""
    if judged.selection is None:
        return None
    chosen = judged.finalists.loc[judged.finalists["selected"], "run_id"]
    run_id = str(chosen.iloc[0])
    table = read_predictions(client, run_id)
    stored = without_scripts(read_text(client, run_id, keys.ARTIFACT_GALLERY))
    versions = client.search_model_versions(f"tags.`{keys.EVIDENCE_RUN}` = '{run_id}'")
    tags = versions[0].tags if versions else {}
    calibration, thresholds = (
        json.loads(tags[key]) if key in tags else None
        for key in (keys.CALIBRATION, keys.THRESHOLDS)
    )
    return Winner(
        table,
        bootstrap_intervals(table),
        calibration=Calibration.from_dict(calibration) if calibration else None,
        thresholds=Thresholds.from_dict(thresholds) if thresholds else None,
        gallery=f"<style>{GALLERY_STYLE}</style>{stored}" if stored else "",
    )


def _history(client: Any, run_id: str) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return pd.read_csv(client.download_artifacts(run_id, keys.ARTIFACT_HISTORY, folder))
        except (MlflowException, OSError, ValueError):
            return pd.DataFrame()


def _decisions(client: Any, judged: JudgedStudy) -> str:
    """The decision log of the newest version that came of the study."""
    if not judged.registered:
        return ""
    newest = judged.registered[-1]
    version = client.get_model_version(newest.name, newest.version)
    return read_text(client, version.run_id, keys.ARTIFACT_DECISIONS)


def _reproduce(name: str, tags: Mapping[str, str], judged: JudgedStudy) -> list[str]:
    lines = [
        f"# code: commit {tags.get(keys.GIT_COMMIT, 'not recorded')}",
        f"# data: fingerprint {tags.get(keys.DATA_FINGERPRINT, '?')}",
        f"# split: digest {tags.get(keys.SPLIT_DIGEST, '?')}",
        "# study.yaml: an artifact of every trial's run in MLflow",
        "python -m breakhis_search run --study study.yaml --data DIR",
        f"python -m breakhis_search compare --study {name}",
    ]
    if not judged.finalists.empty:
        best = search_trials_of(judged.trials)
        lines += [
            f"python -m breakhis_search replay {run_id}   # the best trial of the search again"
            for run_id in best["run_id"].head(1)
        ]
    return lines
