"""The points of the figures have the shape, the areas and the gaps that the metrics have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from breakhis_search.data.taxonomy import class_names
from breakhis_search.evaluation.curves import (
    Line,
    average_vertically,
    confusion_counts,
    curve_areas,
    pr_points,
    roc_points,
    undrawable_classes,
)
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.samples import sample_of

TYPES = class_names("multiclass")
KINDS = {"roc": (roc_points, "fpr", "tpr"), "pr": (pr_points, "recall", "precision")}


def line_of(points: pd.DataFrame, name: str) -> pd.DataFrame:
    return points[points["class"] == name].reset_index(drop=True)


def test_roc_points_by_hand(make_table):
    table = make_table(
        ["malignant", "benign", "malignant", "benign"],
        [[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.8, 0.2]],
    )
    line = line_of(roc_points(table, "image"), "malignant")
    assert line["fpr"].tolist() == [0, 0, 0.5, 0.5, 1]
    assert line["tpr"].tolist() == [0, 0.5, 0.5, 1, 1]
    assert line["threshold"].tolist() == pytest.approx([np.inf, 0.9, 0.7, 0.6, 0.2])


def test_pr_points_by_hand(make_table):
    table = make_table(["malignant", "benign", "malignant"], [[0.1, 0.9], [0.3, 0.7], [0.4, 0.6]])
    line = line_of(pr_points(table, "image"), "malignant")
    assert line["recall"].tolist() == [0, 0.5, 0.5, 1]
    assert line["precision"].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("level", ["image", "patient"])
def test_every_class_has_a_line_and_so_have_macro_and_micro(full_tables, task, level):
    points = roc_points(full_tables[task], level)
    assert list(points["class"].unique()) == [*class_names(task), "macro", "micro"]
    assert set(points["level"]) == {level}


@pytest.mark.parametrize("level", ["image", "patient"])
@pytest.mark.parametrize(("kind", "metric"), [("roc", "auroc"), ("pr", "average_precision")])
def test_areas_below_the_lines_are_the_metrics(full_tables, level, kind, metric):
    table = full_tables["multiclass"]
    metrics, areas = compute_metrics(table), curve_areas(table, level, kind)
    for name in TYPES:
        assert areas[name] == pytest.approx(metrics[f"{level}/{metric}_{name}"], abs=1e-12)
    assert areas["macro"] == pytest.approx(metrics[f"{level}/{metric}"], abs=1e-12)


@pytest.mark.parametrize("level", ["image", "patient"])
def test_micro_areas_agree_with_scikit_learn(full_tables, level):
    table = full_tables["multiclass"]
    sample = sample_of(table, level)
    truth, scores = np.eye(8)[sample.y_true].ravel(), sample.probabilities.ravel()
    roc = reference.roc_auc_score(truth, scores)
    assert curve_areas(table, level, "roc")["micro"] == pytest.approx(roc, abs=1e-12)
    precision = reference.average_precision_score(truth, scores)
    assert curve_areas(table, level, "pr")["micro"] == pytest.approx(precision, abs=1e-12)


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_thinned_lines_are_short_and_keep_their_area(full_tables, kind):
    table = full_tables["multiclass"]
    points_of, x, y = KINDS[kind]
    points, areas = points_of(table, "image"), curve_areas(table, "image", kind)
    for name, line in points.groupby("class"):
        assert len(line) <= 500
        assert np.trapezoid(line[y], line[x]) == pytest.approx(areas[name], abs=5e-4)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("level", ["image", "patient"])
def test_roc_lines_rise_from_corner_to_corner(full_tables, task, level):
    for _, line in roc_points(full_tables[task], level).groupby("class"):
        assert line[["fpr", "tpr"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
        assert (line[["fpr", "tpr"]].diff().dropna() >= 0).all(axis=None)


def test_kept_roc_points_are_points_of_scikit_learns_curve(full_tables):
    sample = sample_of(full_tables["binary"], "image")
    fpr, tpr, _ = reference.roc_curve(
        sample.y_true, sample.probabilities[:, 1], drop_intermediate=False
    )
    line = line_of(roc_points(full_tables["binary"], "image"), "malignant")
    theirs = set(zip(fpr.round(9), tpr.round(9), strict=True))
    assert set(zip(line["fpr"].round(9), line["tpr"].round(9), strict=True)) <= theirs


def test_vertical_average_of_equal_lines_is_that_line():
    x, y = np.array([0.0, 0.0, 0.3, 1.0]), np.array([0.0, 0.5, 0.5, 1.0])
    line = Line(x, y, np.full(4, np.nan))
    mean = average_vertically([line, line])
    assert np.trapezoid(mean.y, mean.x) == pytest.approx(np.trapezoid(y, x))
    assert mean.y.tolist() == [0.0, 0.5, 0.5, 0.5, 1.0, 1.0]


def test_absent_class_has_no_line_but_a_reason(make_table):
    table = make_table([TYPES[0], TYPES[1]], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], names=TYPES[:3])
    assert TYPES[2] not in set(roc_points(table, "image")["class"])
    assert undrawable_classes(table, "image") == {
        TYPES[2]: "no image of this class was scored",
    }


@pytest.mark.parametrize("points_of", [roc_points, pr_points])
def test_single_class_has_no_lines_but_the_columns(make_table, points_of):
    table = make_table(["malignant", "malignant"], [[0.1, 0.9], [0.6, 0.4]])
    points = points_of(table, "patient")
    assert points.empty
    assert {"level", "class", "threshold"} <= set(points.columns)
    assert set(undrawable_classes(table, "patient")) == {"benign", "malignant"}


def test_complete_table_has_no_undrawable_classes(full_tables):
    assert undrawable_classes(full_tables["multiclass"], "patient") == {}


def test_confusion_counts_agree_with_scikit_learn(full_tables):
    table = full_tables["multiclass"]
    sample = sample_of(table, "image")
    cells = confusion_counts(table, "image")
    expected = reference.confusion_matrix(sample.y_true, sample.y_pred)
    assert cells["count"].to_numpy().reshape(8, 8).tolist() == expected.tolist()
    assert cells.loc[1, ["true", "predicted"]].tolist() == [TYPES[0], TYPES[1]]


def test_confusion_rates_sum_to_one_by_true_class(full_tables):
    cells = confusion_counts(full_tables["multiclass"], "patient")
    assert cells.groupby("true")["rate"].sum().to_numpy() == pytest.approx(np.ones(8))


def test_confusion_rate_of_an_absent_class_is_unknown(make_table):
    cells = confusion_counts(make_table(["benign"], [[0.9, 0.1]]), "image")
    assert cells["rate"].isna().tolist() == [False, False, True, True]
