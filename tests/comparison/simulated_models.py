"""Predictions tables of simulated models for the tests of comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from breakhis_search.data.taxonomy import LABELS
from breakhis_search.evaluation.predictions import build_predictions

BINARY_TYPES = ("fibroadenoma", "ductal_carcinoma")


def table_of_scores(
    y_true: Sequence[int], accessions: Sequence[str], scores: Sequence[Sequence[float]]
) -> pd.DataFrame:
    """Return a binary table; a score is the logit of malignant, that of benign is 0."""
    tables = [
        build_predictions(
            _rows([BINARY_TYPES[label] for label in y_true], accessions),
            fold=0,
            seed=seed,
            y_true=np.asarray(y_true),
            logits=np.stack([np.zeros(len(y_true)), np.asarray(values, dtype=float)], axis=1),
            class_names=LABELS,
        )
        for seed, values in enumerate(scores)
    ]
    return pd.concat(tables, ignore_index=True)


def simulated_model(
    patients: Sequence[int],
    *,
    separation: float = 1.0,
    seeds: int = 1,
    images: int = 4,
    model: int = 0,
    names: Sequence[str] = LABELS,
) -> pd.DataFrame:
    """Return a table of a model whose scores depend on class, patient and chance.

    Args:
        patients: Patients of each class.
        separation: Mean of the true class above the others, in standard deviations of a patient.
        seeds: Repetitions.
        images: Of each patient.
        model: Seed of its chance.
        names: The classes.
    """
    rng = np.random.default_rng(model)
    label = np.repeat(np.arange(len(patients)), patients)
    y_true, patient = np.repeat(label, images), np.repeat(np.arange(len(label)), images)
    types = BINARY_TYPES if tuple(names) == LABELS else names
    rows = _rows([types[index] for index in y_true], [f"14-{p}" for p in patient])
    tables = []
    effect = rng.normal(0, 1, (len(label), len(names)))
    for seed in range(seeds):
        logits = separation * np.eye(len(names))[y_true] + effect[patient]
        logits += rng.normal(0, 0.7, logits.shape)
        tables.append(
            build_predictions(
                rows, fold=0, seed=seed, y_true=y_true, logits=logits, class_names=names
            )
        )
    return pd.concat(tables, ignore_index=True)


def _rows(types: Sequence[str], accessions: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"image-{i:04d}.png" for i in range(len(types))],
            "slide": [f"{accession}A" for accession in accessions],
            "accession": list(accessions),
            "magnification": [100] * len(types),
            "type": list(types),
        }
    )
