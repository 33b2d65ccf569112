"""What runs keep, read back from MLflow: the predictions that every comparison rests on, texts."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError
from breakhis_search.evaluation.predictions import read_parquet
from breakhis_search.tracking import keys


def read_predictions(
    client: Any,
    run_id: str,
    artifact: str = keys.ARTIFACT_PREDICTIONS,
    *,
    sha256: str | None = None,
) -> pd.DataFrame:
    """Return the predictions table of a complete run.

    Args:
        client: An MLflow client.
        run_id: A trial's or a finalist's run.
        artifact: Where in the run they are.
        sha256: Of the file, where it is known.

    Raises:
        RegistryError: The run has none (any more), or another file than is known.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = Path(client.download_artifacts(run_id, artifact, folder))
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"the predictions of run {run_id} cannot be read",
                expected=f"its artifact {artifact}",
                received=str(error).splitlines()[0][:200],
                remedy="keep the artifacts of finalists; search again with --new",
            ) from error
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 is not None and found != sha256:
            raise RegistryError(
                f"the predictions of run {run_id} are not what was kept ({artifact})",
                expected=f"sha256 {sha256}",
                received=found,
                remedy="bring back the file of the artifact store",
            )
        return read_parquet(file)


def read_text(client: Any, run_id: str, artifact: str) -> str:
    """Return a text that a run keeps; empty where it has none, or none that can be read.

    Args:
        client: An MLflow client.
        run_id: The run.
        artifact: Where in the run it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, artifact, folder)).read_text("utf-8")
        except (MlflowException, OSError, UnicodeDecodeError):
            return ""
