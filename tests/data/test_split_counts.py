"""Counts of a split agree with the split and with the published counts of the data set."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.split_counts import COLUMNS, count_images, count_patients
from breakhis_search.data.splits import Protocol, Split, split_patients
from breakhis_search.data.taxonomy import TUMOR_TYPES


@pytest.fixture(scope="module")
def split(names_7909: list[str]) -> Split:
    return split_patients(table_from_names(names_7909), "binary", Protocol())


def test_images_of_the_full_list_are_those_of_the_cohort(split):
    images = count_images(split)
    assert tuple(images.columns) == COLUMNS
    published = {t.code: sum(t.images) for t in TUMOR_TYPES}
    published["LC"] -= 123  # the second copy of slide 14-13412
    assert images.loc["all", list(published)].to_dict() == published
    assert images.loc["all", ["benign", "malignant", "all"]].tolist() == [2480, 5306, 7786]


def test_patients_of_the_full_list_are_the_documented_ones(split):
    patients = count_patients(split)
    # Adenosis … papillary carcinoma, benign, malignant, all; docs/protocols.md quotes them.
    assert patients.loc["all"].tolist() == [2, 7, 3, 6, 38, 3, 7, 6, 16, 54, 70]
    assert patients.loc["sealed test"].tolist() == [0, 1, 1, 1, 7, 1, 1, 1, 3, 10, 13]


@pytest.mark.parametrize("count", [count_images, count_patients])
def test_sides_add_up_to_everything(split, count):
    counts = count(split)
    for fold in range(3):
        sides = ["sealed test", f"fold {fold} training", f"fold {fold} validation"]
        total: pd.Series[int] = counts.loc[sides].sum()
        assert total["all"] == counts.loc["all", "all"]
        assert total["benign"] == counts.loc["all", "benign"]


def test_accession_with_two_types_counts_once_in_all():
    names = [
        "SOB_B_F-14-21998CD-40-001.png",
        "SOB_B_PT-14-21998AB-40-001.png",
        *(f"SOB_B_F-14-{n}-40-001.png" for n in range(1000, 1004)),
        *(f"SOB_M_DC-14-{n}-40-001.png" for n in range(2000, 2005)),
    ]
    row = count_patients(
        split_patients(table_from_names(names), "binary", Protocol(folds=2, sealed_test="none"))
    ).loc["all"]
    assert (row["F"], row["PT"], row["benign"], row["all"]) == (5, 1, 5, 10)
