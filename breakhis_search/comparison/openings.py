"""Openings of the sealed test: written to a version before it is looked at, completed afterwards.

Every opening has a tag of its own, whose name no other process can choose, so that two at once are
two records. It is complete when its predictions are kept and their digest is in the tag; what was
cut off before counts as an opening, but says nothing of the version.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.predictions import write_parquet
from breakhis_search.tracking import keys

_FILE = "predictions.parquet"
_CELLS = "cells.csv"
_RECORDED = ("when", "sealed_digest", "model_sha256", "against", "predictions_sha256")


@dataclass(frozen=True)
class Opening:
    """One opening of the sealed test for a version.

    Attributes:
        key: What tells it from every other; sorts by time.
        when: UTC, ISO 8601.
        sealed_digest: Of the sealed test that was opened.
        model_sha256: Of the model that was scored.
        against: The version it was compared with, if any.
        predictions_sha256: Of the file of predictions; empty while it is not complete.
        opened_before: How many openings there were before it.
    """

    key: str
    when: str
    sealed_digest: str
    model_sha256: str
    against: str | None
    predictions_sha256: str = ""
    opened_before: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether its predictions were kept."""
        return bool(self.predictions_sha256)

    @property
    def artifact(self) -> str:
        """Where in the version's run its predictions are."""
        return f"{keys.ARTIFACT_SEALED}/{self.key}/{_FILE}"


def openings_of(client: Any, version: Any) -> list[Opening]:
    """Return every recorded opening of the sealed test for a version, oldest first.

    Args:
        client: An MLflow client; the version is read anew.
        version: A model version.
    """
    tags = client.get_model_version(version.name, version.version).tags
    found = sorted((k, v) for k, v in tags.items() if k.startswith(keys.SEALED_OPENING))
    return [
        Opening(
            key=key.removeprefix(keys.SEALED_OPENING),
            opened_before=number,
            **{name: value for name, value in json.loads(text).items() if name in _RECORDED},
        )
        for number, (key, text) in enumerate(found)
    ]


def versions_it_answered_for(client: Any, name: str, sealed_digest: str) -> set[str]:
    """Return the versions of a registered model that one sealed test was opened for.

    Every one of them was let through or refused by the same few patients, so that the more there
    are, the less it says of patients to come.
    """
    versions = client.search_model_versions(f"name = '{name}'")
    return {
        str(version.version)
        for version in versions
        if any(opening.sealed_digest == sealed_digest for opening in openings_of(client, version))
    }


def begin_opening(client: Any, version: Any, sealed_digest: str, against: str | None) -> Opening:
    """Write down that the sealed test is opened now, and return the record.

    Args:
        client: An MLflow client.
        version: The model version it is opened for.
        sealed_digest: Of the sealed test.
        against: The version it is compared with.
    """
    now = datetime.now(UTC)
    opening = Opening(
        key=keys.unique_key(now),
        when=now.isoformat(timespec="seconds"),
        sealed_digest=sealed_digest,
        model_sha256=version.tags.get(keys.MODEL_SHA256, ""),
        against=against,
    )
    _write(client, version, opening)
    return opening


def complete_opening(client: Any, version: Any, opening: Opening, table: pd.DataFrame) -> None:
    """Keep predictions and cells of an opening with the version's run, then mark it as complete."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _FILE
        write_parquet(table, file)
        cell_table(table).to_csv(Path(folder) / _CELLS, index=False)
        client.log_artifacts(version.run_id, folder, str(Path(opening.artifact).parent))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    _write(client, version, replace(opening, predictions_sha256=digest))


def last_answer(openings: Sequence[Opening], version: Any, sealed_digest: str) -> Opening | None:
    """Return the last complete opening of a sealed test for a model as it is, or ``None``."""
    model = version.tags.get(keys.MODEL_SHA256, "")
    complete = [
        opening
        for opening in openings
        if opening.is_complete
        and (opening.sealed_digest, opening.model_sha256) == (sealed_digest, model)
    ]
    return complete[-1] if complete else None


def predictions_of(client: Any, version: Any, opening: Opening) -> pd.DataFrame:
    """Return the predictions table of a complete opening.

    Raises:
        RegistryError: It is gone, or is not what was kept.
    """
    return read_predictions(
        client, version.run_id, opening.artifact, sha256=opening.predictions_sha256
    )


def _write(client: Any, version: Any, opening: Opening) -> None:
    record = {name: getattr(opening, name) for name in _RECORDED}
    key = keys.SEALED_OPENING + opening.key
    client.set_model_version_tag(version.name, version.version, key, json.dumps(record))
