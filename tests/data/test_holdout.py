"""Hold-out and patients that are only trained on: they are never validated, named or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.splits import Protocol, split_patients
from breakhis_search.errors import SplitError

ACCESSIONS = {
    "B_A": ("1001", "1002", "1003"),
    "B_F": ("2001", "2002", "2003"),
    "M_DC": ("3001", "3002", "3003", "3004"),
    "M_LC": ("6001",),  # alone with its type
}


@pytest.fixture
def table() -> pd.DataFrame:
    return table_from_names(
        [
            f"SOB_{code}-14-{accession}-{magnification}-{i:03d}.png"
            for code, accessions in ACCESSIONS.items()
            for accession in accessions
            for magnification in (40, 100)
            for i in range(3)
        ]
    )


def holdout(*accessions: str, policy: str = "train_only") -> Protocol:
    return Protocol(
        kind="holdout",
        validation_accessions=accessions,
        sealed_test="none",
        on_single_accession_type=policy,
    )


def test_a_type_that_one_patient_has_alone_is_only_trained_on(table):
    split = split_patients(table, "multiclass", holdout("1001", "2001", "3001"))
    [fold] = split.folds
    alone = np.flatnonzero((split.table["accession"] == "14-6001").to_numpy())
    assert len(alone) == 6
    assert set(alone) <= set(fold.train)
    assert not set(alone) & set(fold.validation)
    assert any("never scored" in note and "lobular" in note for note in split.notes)


def test_naming_a_patient_that_is_only_trained_on_is_an_error(table):
    with pytest.raises(SplitError, match=r"14-6001.*lobular_carcinoma.*train_only"):
        split_patients(table, "multiclass", holdout("1001", "3001", "6001"))


def test_a_picture_shared_with_a_named_patient_does_not_let_it_in(table):
    # Pixel-identical images join groups: naming 3001 would bring 6001 along.
    for accession in ("14-3001", "14-6001"):
        first = table.index[table["accession"] == accession][0]
        table.loc[first, "pixel_sha256"] = "the same picture"
    with pytest.raises(SplitError, match=r"14-6001.*train_only"):
        split_patients(table, "multiclass", holdout("1001", "3001"))


def test_without_a_policy_it_is_refused_before_anything_is_held_out(table):
    with pytest.raises(SplitError, match="lobular_carcinoma: one accession only"):
        split_patients(table, "multiclass", holdout("1001", "3001", policy="error"))


def test_binary_scores_a_patient_whatever_its_type(table):
    [fold] = split_patients(table, "binary", holdout("1001", "6001")).folds
    assert len(fold.validation) == 12
