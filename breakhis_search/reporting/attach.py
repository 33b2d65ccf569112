"""Model card and decision log, kept with the registered version in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.comparison.history import ChampionChange
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.reporting.decision_log import decision_log
from breakhis_search.reporting.facts import Facts, gather_facts
from breakhis_search.reporting.model_card import model_card, summary
from breakhis_search.tracking import keys

_FORESEEABLE = (
    BreakhisSearchError,
    MlflowException,
    OSError,
    LookupError,  # the three of records that somebody else wrote, or an older version
    TypeError,
    ValueError,
)


def write_paper_trail(facts: Facts) -> Mapping[str, str]:
    """Return model card and decision log by artifact path, in Markdown."""
    return {
        keys.ARTIFACT_CARD: model_card(facts),
        keys.ARTIFACT_DECISIONS: decision_log(facts),
    }


def attach_paper_trail(client: Any, name: str, version: str, say: Callable[[str], None]) -> None:
    """Write card and log of a version anew and keep them as artifacts of its run.

    Called after the alias was moved or the gate has answered: whatever goes wrong here is told and
    undoes nothing. The version's description becomes the card's summary, and a tag says where the
    card is.

    Args:
        client: An MLflow client.
        name: Registered model.
        version: Its number.
        say: Told when it could not be done.
    """
    try:
        registered = client.get_model_version(name, version)
        facts = gather_facts(client, registered)
        _keep(client, registered.run_id, write_paper_trail(facts))
        _point_at(client, registered, summary(facts))
    except _FORESEEABLE as error:
        lines = str(error).splitlines() or [type(error).__name__]
        say(
            f"the model card of {name} version {version} could not be kept"
            f" ({lines[0]}); `card` writes it later"
        )


def attach_after_change(
    client: Any, name: str, change: ChampionChange, say: Callable[[str], None]
) -> None:
    """Write anew the card and log of the new champion and of the one that it replaced.

    Args:
        client: An MLflow client.
        name: Registered model.
        change: The move of the alias.
        say: Told when it could not be done.
    """
    attach_paper_trail(client, name, change.version, say)
    if change.previous is not None:
        attach_paper_trail(client, name, change.previous, say)


def _keep(client: Any, run_id: str, texts: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for place, text in texts.items():
            file = Path(folder) / Path(place).name
            file.write_text(text, encoding="utf-8")
            client.log_artifact(run_id, str(file), str(Path(place).parent))


def _point_at(client: Any, version: Any, description: str) -> None:
    """Write to the registry what is not there yet: a refusal changes nothing in it."""
    where = f"run {version.run_id}, artifact {keys.ARTIFACT_CARD}"
    if version.tags.get(keys.MODEL_CARD) != where:
        client.set_model_version_tag(version.name, version.version, keys.MODEL_CARD, where)
    if version.description != description:
        client.update_model_version(version.name, version.version, description=description)
