"""The predictions table keeps its promises, or says which one is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation import predictions

BINARY = ("benign", "malignant")
HALVES = [[0.5, 0.5], [0.5, 0.5]]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [Path("a.png"), Path("b.png")],
            "slide": ["14-1A", "14-2"],
            "accession": ["14-1", "14-2"],
            "magnification": [40, 400],
            "type": pd.Categorical(["adenosis", "lobular_carcinoma"]),
        },
        index=[7, 3],
    )


def build(rows: pd.DataFrame, **changes: object) -> pd.DataFrame:
    facts = {
        "fold": 2,
        "y_true": np.array([0, 1]),
        "logits": np.array([[1.0, -1.0], [0.5, 2.0]]),
        "class_names": BINARY,
    }
    return predictions.build_predictions(rows, **{**facts, **changes})


def test_built_table_has_the_documented_columns_and_types(rows):
    table = build(rows)
    assert list(table.columns) == [
        "image",
        "slide",
        "accession",
        "magnification",
        "type",
        "fold",
        "seed",
        "y_true",
        "logit_benign",
        "logit_malignant",
    ]
    assert table["image"].tolist() == ["a.png", "b.png"]
    assert table["logit_malignant"].dtype == np.float32
    assert table["fold"].tolist() == [2, 2]


def test_built_table_pairs_rows_by_position_not_by_index(rows):
    table = build(rows)
    assert table.index.tolist() == [0, 1]
    assert table.loc[1, ["image", "y_true", "logit_malignant"]].tolist() == ["b.png", 1, 2.0]


def test_building_leaves_the_given_rows_alone(rows):
    before = rows.copy()
    build(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_missing_image_column_is_refused(rows):
    with pytest.raises(DataError, match="a table without slide"):
        build(rows.drop(columns="slide"))


@pytest.mark.parametrize(
    "changes",
    [
        {"y_true": [0]},
        {"logits": [[1.0, 2.0]]},
        {"logits": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]},
    ],
)
def test_lengths_that_disagree_are_refused(rows, changes):
    with pytest.raises(DataError, match="do not belong together"):
        build(rows, **changes)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logit_that_is_not_finite_is_refused_with_its_image(rows, broken):
    with pytest.raises(DataError, match=r"1 of 2 images, first b\.png"):
        build(rows, logits=[[0.0, 0.0], [broken, 0.0]])


def test_true_class_out_of_range_is_refused(rows):
    with pytest.raises(DataError, match=r"out of range.*from 0 to 1.*received 2"):
        build(rows, y_true=[0, 2])


def test_true_class_that_is_not_an_integer_is_refused(rows):
    with pytest.raises(DataError, match="not an integer"):
        build(rows, y_true=[0.0, 1.0])


def test_true_class_at_odds_with_the_type_is_refused(rows):
    with pytest.raises(DataError, match="y_true contradicts the tumour type"):
        build(rows, class_names=("malignant", "benign"))


def test_unknown_tumour_type_is_refused(rows):
    with pytest.raises(DataError, match="a tumour type is unknown.*received sarcoma"):
        build(rows.assign(type=["sarcoma", "adenosis"]))


def test_image_scored_twice_is_refused_when_folds_are_pooled(rows):
    pooled = pd.concat(
        [build(rows, fold=0), build(rows.iloc[:1], fold=1, y_true=[0], logits=[[0, 1]])]
    )
    with pytest.raises(DataError, match=r"scored twice.*1 repeated rows, first a\.png"):
        predictions.check_predictions(pooled)


def test_empty_table_is_refused(rows):
    with pytest.raises(DataError, match="the predictions table is empty"):
        build(rows.iloc[:0], y_true=np.empty(0, int), logits=np.empty((0, 2)))


def test_table_of_one_class_column_is_refused(rows):
    with pytest.raises(DataError, match="too few classes"):
        predictions.class_names_of(build(rows).drop(columns="logit_benign"))


def test_class_names_keep_the_order_of_a_subset_of_types(rows):
    names = ("lobular_carcinoma", "adenosis", "fibroadenoma")
    table = build(rows, class_names=names, y_true=[1, 0], logits=np.zeros((2, 3)))
    assert predictions.class_names_of(table) == names
    assert predictions.logits_of(table).shape == (2, 3)


def test_probabilities_of_extreme_logits_are_finite_and_sum_to_one(rows):
    probabilities = predictions.probabilities_of(build(rows, logits=[[1e4, -1e4], [-3.0, -3.0]]))
    assert probabilities.dtype == np.float64
    assert probabilities.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_patient_probability_is_the_mean_of_its_images(make_table):
    table = make_table(
        ["benign", "malignant", "benign"],
        [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]],
        accessions=["p", "q", "p"],
    )
    patients = predictions.by_patient_mean_probability(table)
    assert patients["accession"].tolist() == ["p", "q"]
    assert patients["images"].tolist() == [2, 1]
    assert patients["probability_benign"].tolist() == pytest.approx([0.7, 0.2])


def test_patient_of_two_types_counts_once_per_type(make_table):
    table = make_table(["benign", "malignant"], HALVES, accessions=["p", "p"])
    patients = predictions.by_patient_mean_probability(table)
    assert patients[["accession", "y_true"]].to_numpy().tolist() == [["p", 0], ["p", 1]]


def test_patient_level_does_not_depend_on_the_order_of_images(full_tables):
    table = full_tables["multiclass"]
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        predictions.by_patient_mean_probability(table),
        predictions.by_patient_mean_probability(shuffled),
    )


def test_parquet_gives_back_the_same_table(full_tables, tmp_path):
    table = full_tables["multiclass"]
    predictions.write_parquet(table, tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(predictions.read_parquet(tmp_path / "predictions.parquet"), table)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.parquet"]


def test_writing_a_broken_table_leaves_no_file(make_table, tmp_path):
    table = make_table(["benign"], [[0.5, 0.5]]).assign(logit_benign=np.nan)
    with pytest.raises(DataError, match="logits are not finite"):
        predictions.write_parquet(table, tmp_path / "predictions.parquet")
    assert not list(tmp_path.iterdir())


def test_reading_a_missing_file_is_a_domain_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read predictions from .*absent\.parquet"):
        predictions.read_parquet(tmp_path / "absent.parquet")


def test_reading_something_else_is_a_domain_error(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot read predictions"):
        predictions.read_parquet(tmp_path / "text.parquet")


def test_reading_another_parquet_table_names_the_missing_columns(tmp_path):
    pd.DataFrame({"image": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="columns are missing"):
        predictions.read_parquet(tmp_path / "other.parquet")


def test_image_scored_by_two_seeds_is_accepted(rows):
    tables = [build(rows, seed=seed) for seed in (0, 1)]
    pooled = pd.concat(tables, ignore_index=True)
    predictions.check_predictions(pooled)
    assert [part["seed"].unique().tolist() for part in predictions.tables_by_seed(pooled)] == [
        [0],
        [1],
    ]
