"""The study's own run in MLflow, the parent of all its trials: what it says first and last."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import yaml
from optuna.trial import FrozenTrial

from breakhis_search.comparison.registered import Registered
from breakhis_search.study.context import StudyContext
from breakhis_search.study.leases import lead_of
from breakhis_search.study.records import protocol_in_words
from breakhis_search.study.report import study_as_run
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.workflow.registration import Winner


def begin_parent(context: StudyContext) -> Journal:
    """Begin the run and keep the study file with it: a search may end before any trial does."""
    journal = context.journal(context.uid)
    tags = {
        **context.tags,
        keys.ROLE: keys.ROLE_STUDY,
        keys.MLFLOW_NOTE: _description(context),
        keys.SELECTION_RULES: context.config.selection.model_dump_json(),
    }
    journal.begin(
        name=context.name,
        tags=tags,
        parent_uid=None,
        experiment=context.experiment,
        turn=context.leases.turn_of(lead_of(context.uid)),
    )
    settings = json.loads(study_as_run(context.config))
    with journal.disk_errors():
        file = journal.artifacts / keys.ARTIFACT_CONFIG
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    journal.log_artifacts()
    return journal


def describe_end(
    parent: Journal,
    context: StudyContext,
    trials: Sequence[FrozenTrial],
    winner: Winner | None,
    registered: Registered | None,
    reason: str | None,
) -> None:
    """Add to the description what the study came to.

    Args:
        parent: Journal of the study's run.
        context: The study.
        trials: All of the search.
        winner: The selected finalist, if there is one.
        registered: The version that was registered of it.
        reason: Why none was.
    """
    states = Counter(trial.state.name.lower() for trial in trials)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"trials: {counted}"]
    if winner is not None:
        lines.append(winner.why)
    if registered is None:
        lines.append(f"not registered: {reason}")
    else:
        version = f"{registered.name} version {registered.version}"
        lines.append(f"registered: {version}, {registered.alias}")
    result = "".join(f"* {line}\n" for line in lines)
    parent.set_tags({keys.MLFLOW_NOTE: f"{_description(context)}\n**Result**\n\n{result}"})


def _description(context: StudyContext) -> str:
    config, split = context.config, context.split
    return (
        f"**{context.name}**: {config.description or config.task}\n\n"
        f"* data: {len(split.table)} development images"
        + (" (SYNTHETIC DEMO)" if context.is_demo else "")
        + f"\n* protocol: {protocol_in_words(context)}\n* objective: {config.objective}\n"
        + "".join(f"* {note}\n" for note in split.notes)
    )
