"""Opening the sealed test: for registered artifacts only, written down before it is looked at."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Metric

from breakhis_search.comparison.openings import (
    Opening,
    begin_opening,
    complete_opening,
    openings_of,
    predictions_of,
    versions_it_answered_for,
)
from breakhis_search.data.catalog import Catalog
from breakhis_search.data.cohort import restrict_magnification, select_cohort
from breakhis_search.data.sealing import choose_sealed_test
from breakhis_search.data.taxonomy import Task, class_names
from breakhis_search.evaluation.calibration import Calibration, calibrate_table
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.predictions import LOGIT_PREFIX, build_predictions
from breakhis_search.evaluation.thresholds import Thresholds, locked_metrics
from breakhis_search.tracking import keys
from breakhis_search.wording import counted, patients_in_words

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

    def patients_in_words(self) -> str:
        """Return who answers, such as ``4 patients (1 benign, 3 malignant)``."""
        patients = self.rows.drop_duplicates("patient")["y"].value_counts()
        names = enumerate(class_names(self.task))
        return patients_in_words({name: int(patients.get(index, 0)) for index, name in names})


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
    counts as one; its predictions and metrics go to the version's run, and make it complete.

    Args:
        client: An MLflow client.
        version: A model version.
        model: Its pyfunc, from :func:`.loading.load_verified`.
        images: The sealed test.
        against: The version it is compared with.
        say: Told what is being done.
    """
    others = versions_it_answered_for(client, version.name, images.digest) - {str(version.version)}
    opening = begin_opening(client, version, images.digest, against)
    earlier = [o.key for o in openings_of(client, version)].index(opening.key)
    say(
        f"opening the sealed test for version {version.version} of {version.name}:"
        f" {counted(len(images.rows), 'image')} of {images.patients_in_words()}"
        + (f" (OPENED BEFORE: {earlier} ×)" if earlier else "")
        + (f"; these patients have answered before, for {_versions(others)}" if others else "")
    )
    table = _score(model, images)
    metrics = _metrics_of(version, table)
    _show(client, version, metrics)
    complete_opening(client, version, opening, table)
    return metrics


def _versions(numbers: set[str]) -> str:
    """Return such as ``version 3`` or ``versions 1, 3``."""
    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(sorted(numbers, key=int))}"


def recorded_metrics(client: Any, version: Any, opening: Opening) -> dict[str, float]:
    """Return what the sealed test said of a version in a complete opening.

    Args:
        client: An MLflow client.
        version: A model version.
        opening: Of this version.

    Raises:
        RegistryError: Its predictions are gone, or are not what was kept.
    """
    return _metrics_of(version, predictions_of(client, version, opening))


def _metrics_of(version: Any, table: pd.DataFrame) -> dict[str, float]:
    return {**compute_metrics(table), **_at_locked_thresholds(version, table)}


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


def _show(client: Any, version: Any, metrics: Mapping[str, float]) -> None:
    """Log the metrics to the version's run, for people; what counts is the predictions."""
    now_ms = int(time.time() * 1000)
    entries = [
        Metric(f"{keys.ARTIFACT_SEALED}/{name}", value, now_ms, 0)
        for name, value in metrics.items()
    ]
    client.log_batch(version.run_id, metrics=entries)
