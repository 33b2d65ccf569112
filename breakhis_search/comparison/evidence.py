"""Predictions read back from MLflow: what every comparison rests on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError
from breakhis_search.evaluation.predictions import read_parquet
from breakhis_search.tracking import keys


def read_predictions(
    client: Any, run_id: str, artifact: str = keys.ARTIFACT_PREDICTIONS
) -> pd.DataFrame:
    """Return the predictions table of a complete run.

    Args:
        client: An MLflow client.
        run_id: A trial's or a finalist's run.
        artifact: Where in the run they are.

    Raises:
        RegistryError: The run has none (any more).
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
        return read_parquet(file)
