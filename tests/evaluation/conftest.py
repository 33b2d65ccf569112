"""Predictions tables for the tests of evaluation: tiny ones by hand, large ones BreaKHis-shaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.taxonomy import (
    LABELS,
    MAGNIFICATIONS,
    TUMOR_TYPES,
    Task,
    class_names,
)
from breakhis_search.evaluation.predictions import build_predictions

TYPE_OF_LABEL = {"benign": "adenosis", "malignant": "ductal_carcinoma"}

MakeTable = Callable[..., pd.DataFrame]


@pytest.fixture
def make_table() -> MakeTable:
    """Maker of a small checked table from true classes and probabilities."""
    return table_from


@pytest.fixture(scope="session")
def full_tables() -> dict[Task, pd.DataFrame]:
    """Tables of the size of BreaKHis: 7,909 images, patients with effects of their own."""
    return {"binary": breakhis_shaped("binary"), "multiclass": breakhis_shaped("multiclass")}


def table_from(
    true: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    *,
    names: Sequence[str] = LABELS,
    accessions: Sequence[str] | None = None,
    magnifications: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return a checked table; without accessions every image is a patient of its own."""
    count = len(true)
    rows = pd.DataFrame(
        {
            "image": [f"image-{i:03d}.png" for i in range(count)],
            "slide": [f"{a}A" for a in accessions or map(str, range(count))],
            "accession": list(accessions or map(str, range(count))),
            "magnification": list(magnifications or [100] * count),
            "type": [TYPE_OF_LABEL.get(name, name) for name in true],
        }
    )
    labels = [list(names).index(name) for name in true]
    logits = np.log(np.asarray(probabilities, dtype=np.float64))
    return build_predictions(rows, fold=0, y_true=labels, logits=logits, class_names=names)


def breakhis_shaped(task: Task, *, seed: int = 7, folds: int = 3) -> pd.DataFrame:
    """Return a pooled table of the size of BreaKHis with plausible, patient-wise scores."""
    rng = np.random.default_rng(seed)
    names = class_names(task)
    tables = []
    for fold, (rows, y_true) in enumerate(_folds_of_images(task, folds)):
        patients, codes = np.unique(rows["accession"], return_inverse=True)
        evidence = np.eye(len(names))[y_true] * 1.6
        evidence += rng.normal(0, 1.0, (len(patients), len(names)))[codes]
        evidence += rng.normal(0, 0.8, evidence.shape)
        tables.append(
            build_predictions(rows, fold=fold, y_true=y_true, logits=evidence, class_names=names)
        )
    return pd.concat(tables, ignore_index=True)


def _folds_of_images(task: Task, folds: int) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """Return rows and labels of each fold; the slides of every type take turns."""
    records = [
        (
            f"{tumor_type.name}/{magnification}/{number:04d}.png",
            f"14-{1000 * index + number % tumor_type.slides}A",
            f"14-{1000 * index + number % tumor_type.slides}",
            magnification,
            tumor_type.name,
        )
        for index, tumor_type in enumerate(TUMOR_TYPES)
        for magnification, images in zip(MAGNIFICATIONS, tumor_type.images, strict=True)
        for number in range(images)
    ]
    rows = pd.DataFrame(records, columns=["image", "slide", "accession", "magnification", "type"])
    labels = {t.name: t.label if task == "binary" else t.name for t in TUMOR_TYPES}
    y_true = rows["type"].map(labels).map(class_names(task).index).to_numpy()
    fold = rows["accession"].str.slice(3).astype(int).to_numpy() % folds
    return [(rows[fold == k], y_true[fold == k]) for k in range(folds)]
