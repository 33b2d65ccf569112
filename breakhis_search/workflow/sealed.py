"""Opening the sealed test: for registered artifacts only, written down before it is looked at."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from breakhis_search.comparison.history import openings_of
from breakhis_search.data.catalog import Catalog
from breakhis_search.data.cohort import restrict_magnification, select_cohort
from breakhis_search.data.sealing import choose_sealed_test
from breakhis_search.data.taxonomy import Task, class_names
from breakhis_search.evaluation.calibration import Calibration, calibrate_table
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.predictions import LOGIT_PREFIX, build_predictions, write_parquet
from breakhis_search.evaluation.thresholds import Thresholds, locked_metrics
from breakhis_search.tracking import keys

_BATCH = 64


@dataclass(frozen=True)
class SealedImages:
    """The images of the sealed test.

    Attributes:
        root: Folder their paths are relative to.
        rows: Cohort rows with ``path``, ``y`` and what a predictions table needs.
        digest: sha256 over what they show and what they are.
        task: ``binary`` or ``multiclass``.
    """

    root: Path
    rows: pd.DataFrame
    digest: str
    task: Task


def sealed_images(catalog: Catalog, task: Task, magnification: int | None) -> SealedImages | None:
    """Return the sealed test of a data set, or ``None`` where it has none."""
    sealed = choose_sealed_test(catalog.table)
    cohort = select_cohort(catalog.table, task, group_by="accession")
    cohort = restrict_magnification(cohort, magnification)
    rows = cohort[cohort["patient"].isin(sealed.groups)].reset_index(drop=True)
    if rows.empty:
        return None
    content = sorted(zip(rows["sha256"], rows["y"].tolist(), strict=True))
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return SealedImages(catalog.root, rows, digest, task)


def open_sealed_test(
    client: Any,
    version: Any,
    model: Any,
    images: SealedImages,
    *,
    against: str | None,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Score a registered version on the sealed test and return its metrics.

    The opening is written to the version before anything is scored, so that a run that is cut off
    counts as one; the predictions and metrics go to the version's run.

    Args:
        client: An MLflow client.
        version: A model version.
        model: Its pyfunc, from :func:`.loading.load_verified`.
        images: The sealed test.
        against: The version it is compared with.
        say: Told what is being done.
    """
    earlier = openings_of(version)
    say(
        f"opening the sealed test for version {version.version} of {version.name}:"
        f" {len(images.rows)} images of {images.rows['patient'].nunique()} patients"
        + (f" (OPENED BEFORE: {len(earlier)} ×)" if earlier else "")
    )
    tag = f"{keys.SEALED_OPENING}{len(earlier) + 1:03d}"
    opening: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "sealed_digest": images.digest,
        "model_sha256": version.tags.get(keys.MODEL_SHA256, ""),
        "against": against,
        "opened_before": len(earlier),
    }
    client.set_model_version_tag(version.name, version.version, tag, json.dumps(opening))
    table = _score(model, images)
    metrics = {**compute_metrics(table), **_at_locked_thresholds(version, table)}
    _keep(client, version, table, metrics)
    return metrics


def recorded_metrics(client: Any, version: Any, images_digest: str) -> dict[str, float] | None:
    """Return what the sealed test said of a version when it was opened last.

    Args:
        client: An MLflow client.
        version: A model version.
        images_digest: Of the sealed test as it is now.

    Returns:
        ``None`` where it was never opened for it, or was another one, or cut off.
    """
    openings = openings_of(version)
    if not openings or openings[-1]["sealed_digest"] != images_digest:
        return None
    prefix = f"{keys.ARTIFACT_SEALED}/"
    metrics = client.get_run(version.run_id).data.metrics
    known = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
    return known or None


def _score(model: Any, images: SealedImages) -> pd.DataFrame:
    """The predictions table of a registered classifier, from image files.

    It holds the logits as the network gives them, like the out-of-fold table it is held against.
    """
    names = class_names(images.task)
    paths = [images.root / path for path in images.rows["path"]]
    answers = []
    for start in range(0, len(paths), _BATCH):
        batch = pd.DataFrame({"image": [p.read_bytes() for p in paths[start : start + _BATCH]]})
        answer = model.predict(batch, params={"logits": True})
        answers.append(answer[[LOGIT_PREFIX + name for name in names]].to_numpy(np.float64))
    return build_predictions(
        images.rows.rename(columns={"path": "image"}),
        fold=0,
        y_true=images.rows["y"].to_numpy(np.int64),
        logits=np.concatenate(answers),
        class_names=names,
    )


def _at_locked_thresholds(version: Any, table: pd.DataFrame) -> Mapping[str, float]:
    """Sensitivity and its kin at the thresholds that were locked out-of-fold (binary only)."""
    locked, fitted = (version.tags.get(key) for key in (keys.THRESHOLDS, keys.CALIBRATION))
    if not locked or not fitted:
        return {}
    calibrated = calibrate_table(table, Calibration.from_dict(json.loads(fitted)))
    return locked_metrics(calibrated, Thresholds.from_dict(json.loads(locked)))


def _keep(client: Any, version: Any, table: pd.DataFrame, metrics: Mapping[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.parquet"
        write_parquet(table, file)
        client.log_artifact(version.run_id, str(file), keys.ARTIFACT_SEALED)
    for name, value in metrics.items():
        client.log_metric(version.run_id, f"{keys.ARTIFACT_SEALED}/{name}", value)
