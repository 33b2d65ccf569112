"""Model card and decision log, kept with the registered version in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.errors import BreakhisSearchError
from breakhis_search.reporting.decision_log import decision_log
from breakhis_search.reporting.facts import Facts, gather_facts
from breakhis_search.reporting.model_card import model_card
from breakhis_search.tracking import keys


def write_paper_trail(facts: Facts) -> Mapping[str, str]:
    """Return model card and decision log by artifact path, in Markdown."""
    return {
        keys.ARTIFACT_CARD: model_card(facts),
        keys.ARTIFACT_DECISIONS: decision_log(facts),
    }


def attach_paper_trail(client: Any, name: str, version: str, say: Callable[[str], None]) -> None:
    """Write card and log of a version anew and keep them as artifacts of its run.

    Called after the alias was moved: whatever goes wrong here is told and undoes nothing.

    Args:
        client: An MLflow client.
        name: Registered model.
        version: Its number.
        say: Told when it could not be done.
    """
    try:
        registered = client.get_model_version(name, version)
        texts = write_paper_trail(gather_facts(client, registered))
        with tempfile.TemporaryDirectory() as folder:
            for place, text in texts.items():
                file = Path(folder) / Path(place).name
                file.write_text(text, encoding="utf-8")
                client.log_artifact(registered.run_id, str(file), str(Path(place).parent))
        where = f"run {registered.run_id}, artifact {keys.ARTIFACT_CARD}"
        client.set_model_version_tag(name, version, keys.MODEL_CARD, where)
    except (BreakhisSearchError, MlflowException, OSError) as error:
        say(
            f"the model card of {name} version {version} could not be kept"
            f" ({str(error).splitlines()[0]}); `card` writes it later"
        )
