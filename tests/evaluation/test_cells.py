"""Every cell of type and magnification, with its images and patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation.cells import ALL, COLUMNS, cell_table


@pytest.fixture
def table(make_table) -> pd.DataFrame:
    """Two adenosis patients (three and one image), one of ductal carcinoma."""
    return make_table(
        ["benign"] * 4 + ["malignant"] * 2,
        [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]],
        accessions=["14-0", "14-0", "14-0", "14-1", "14-2", "14-2"],
        magnifications=[40, 40, 100, 40, 40, 40],
    )


def cell(cells: pd.DataFrame, tumor_type: str, magnification: str) -> pd.Series:
    return cells.set_index(["type", "magnification"]).loc[(tumor_type, magnification)]


def test_cell_by_hand(table) -> None:
    found = cell(cell_table(table), "adenosis", "40")
    assert (found["images"], found["patients"]) == (3, 2)
    assert found["image_accuracy"] == pytest.approx(2 / 3)
    assert found["patient_recognition_rate"] == pytest.approx((1 + 0) / 2)
    assert found["mean_probability_true"] == pytest.approx((0.9 + 0.8 + 0.3) / 3, abs=1e-6)


def test_patient_levels_of_a_cell_by_hand(make_table) -> None:
    """The one is right by mean probability and wrong by vote, the other the other way round."""
    table = make_table(
        ["benign"] * 6,
        [[0.95, 0.05], [0.45, 0.55], [0.45, 0.55], [0.52, 0.48], [0.52, 0.48], [0.1, 0.9]],
        accessions=["14-0"] * 3 + ["14-1"] * 3,
        magnifications=[40] * 6,
    )
    logits = {"14-0": 0.0, "14-1": 0.0}
    for accession, p in zip(table["accession"], [0.95, 0.45, 0.45, 0.52, 0.52, 0.1], strict=True):
        logits[accession] += np.log(p / (1 - p))
    right = np.mean([value > 0 for value in logits.values()])
    found = cell(cell_table(table), "adenosis", "40")
    assert found["patient_accuracy"] == 0.5
    assert found["patient_majority_vote_accuracy"] == 0.5
    assert found["patient_mean_logit_accuracy"] == right
    first = cell(cell_table(table.iloc[:3]), "adenosis", "40")
    assert (first["patient_accuracy"], first["patient_majority_vote_accuracy"]) == (1, 0)


def test_patient_of_two_types_counts_in_both_cells(make_table) -> None:
    table = make_table(
        ["malignant"] * 3,
        [[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]],
        accessions=["14-0"] * 3,
        magnifications=[40] * 3,
    )
    table["type"] = ["ductal_carcinoma", "lobular_carcinoma", "lobular_carcinoma"]
    cells = cell_table(table)
    assert cell(cells, "ductal_carcinoma", "40")["patient_accuracy"] == 1
    assert cell(cells, "lobular_carcinoma", "40")["patient_accuracy"] == 0
    assert cell(cells, ALL, ALL)["patients"] == 1


def test_margins_by_hand(table) -> None:
    cells = cell_table(table)
    everything = cell(cells, ALL, ALL)
    assert (everything["images"], everything["patients"]) == (6, 3)
    assert everything["image_accuracy"] == pytest.approx(3 / 6)
    assert everything["patient_recognition_rate"] == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert cell(cells, "adenosis", ALL)["images"] == 4


def test_cells_without_images_are_left_out(table) -> None:
    cells = cell_table(table)
    assert list(cells.columns) == list(COLUMNS)
    assert list(zip(cells["type"], cells["magnification"], strict=True)) == [
        ("adenosis", "40"),
        ("adenosis", "100"),
        ("adenosis", ALL),
        ("ductal_carcinoma", "40"),
        ("ductal_carcinoma", ALL),
        (ALL, "40"),
        (ALL, "100"),
        (ALL, ALL),
    ]


def test_seeds_are_averaged_and_not_counted_twice(table) -> None:
    worse = table.assign(
        seed=1, logit_benign=table["logit_malignant"], logit_malignant=table["logit_benign"]
    )
    both = cell_table(pd.concat([table, worse], ignore_index=True))
    found = cell(both, ALL, ALL)
    assert (found["images"], found["patients"]) == (6, 3)
    assert found["image_accuracy"] == pytest.approx(0.5)


def test_cells_of_the_full_set_add_up(full_tables) -> None:
    cells = cell_table(full_tables["multiclass"])
    inner = cells[(cells["type"] != ALL) & (cells["magnification"] != ALL)]
    assert len(inner) == 32
    assert inner["images"].sum() == cell(cells, ALL, ALL)["images"] == 7909


def test_empty_table_is_refused(table) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        cell_table(table.iloc[:0])
