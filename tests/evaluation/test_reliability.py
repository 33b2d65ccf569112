"""Reliability figures draw what their points say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.evaluation.calibration import (
    Calibration,
    calibrate_table,
    cross_fit,
    scores_at_both_levels,
)
from breakhis_search.evaluation.predictions import softmax
from breakhis_search.evaluation.reliability import (
    calibration_section,
    class_reliability_figure,
    magnification_reliability_figure,
    reliability_figure,
    reliability_points,
)
from breakhis_search.evaluation.style import build_template

LEVELS = ("image", "patient")


@pytest.fixture
def overconfident(full_tables):
    """Tables of both tasks whose logits are three times too large."""

    def make(task, seeds=1):
        table = full_tables[task]
        classes = sum(column.startswith("logit_") for column in table)
        sharp = calibrate_table(table, Calibration((0.0,) * classes, 1 / 3))
        return pd.concat([sharp.assign(seed=s) for s in range(seeds)], ignore_index=True)

    return make


def dots(points, level, state):
    return points[(points["level"] == level) & (points["state"] == state)]


def test_points_by_hand_over_two_bins(make_table):
    malignant = [0.2] * 10 + [0.9] * 10
    true = ["malignant"] * 3 + ["benign"] * 7 + ["malignant"] * 8 + ["benign"] * 2
    table = make_table(true, [[1 - p, p] for p in malignant])
    found = dots(reliability_points(table, table), "patient", "before")
    assert found["claimed"].tolist() == pytest.approx([0.2, 0.9])
    assert found["happened"].tolist() == pytest.approx([0.3, 0.8])
    assert found["count"].tolist() == found["patients"].tolist() == [10, 10]
    # 3 of 10, by scipy.stats.binomtest(3, 10).proportion_ci(method="wilson")
    assert found[["low", "high"]].iloc[0].tolist() == pytest.approx([0.1078, 0.6032], abs=1e-4)


def test_multiclass_points_claim_the_most_probable_class(overconfident):
    table = overconfident("multiclass")
    found = dots(reliability_points(table, table), "image", "after")
    metrics_right = (found["happened"] * found["count"]).sum() / found["count"].sum()
    logits = table[[c for c in table if c.startswith("logit_")]].to_numpy()
    right = softmax(logits).argmax(axis=1) == table["y_true"]
    assert metrics_right == pytest.approx(right.mean())


def test_images_have_no_interval(overconfident):
    table = overconfident("binary")
    points = reliability_points(table, table)
    assert points[points["level"] == "image"][["low", "high"]].isna().all(axis=None)
    assert points[points["level"] == "patient"][["low", "high"]].notna().all(axis=None)


def test_seeds_add_cases_but_neither_bins_nor_certainty(overconfident):
    one, three = overconfident("binary"), overconfident("binary", seeds=3)
    single = dots(reliability_points(one, one), "patient", "before").reset_index(drop=True)
    pooled = dots(reliability_points(three, three), "patient", "before").reset_index(drop=True)
    assert (pooled["count"] == 3 * single["count"]).all()
    np.testing.assert_allclose(pooled[["low", "high"]], single[["low", "high"]])


@pytest.mark.parametrize("level", LEVELS)
def test_reliability_legend_tells_the_error_of_each_line(overconfident, level):
    before = overconfident("multiclass")
    after = cross_fit(before, np.zeros(8))
    figure = reliability_figure(before, after, level)
    for trace, state, table in zip(
        figure.data[1:], ("before", "after"), (before, after), strict=True
    ):
        error = scores_at_both_levels(table)[f"{level}/ece"]
        assert trace.name == f"{state}, {error:.3f}"


def test_binary_reliability_legend_tells_the_error_of_the_malignant_probability(overconfident):
    table = overconfident("binary")
    figure = reliability_figure(table, table, "image")
    assert (
        figure.data[1].name == f"before, {scores_at_both_levels(table)['image/ece_classwise']:.3f}"
    )


def test_only_patients_are_compared_with_luck_and_have_bars(overconfident):
    table = overconfident("binary")
    image, patient = (reliability_figure(table, table, level) for level in LEVELS)
    assert image.data[0].name == "perfect"
    assert patient.data[0].name.startswith("perfect (luck alone: 0.")
    assert image.data[2].error_y.array is None
    assert len(patient.data[2].error_y.array) == len(patient.data[2].x)
    assert patient.data[1].error_y.array is None  # two sets of bars could not be told apart


def test_titles_count_cases_and_seeds(overconfident):
    table = overconfident("binary", seeds=3)
    figure = reliability_figure(table, table, "image")
    assert figure.layout.title.text == "Calibration, 7,909 images × 3 seeds"
    assert figure.layout.template == build_template()


def test_section_holds_both_levels_and_says_how_to_read_them(overconfident):
    table = overconfident("binary")
    calibration = calibration_section(table, cross_fit(table, [0.0, 0.0]))
    assert len(calibration.figures) == 2
    assert "of being malignant" in calibration.reading


def test_each_magnification_has_the_error_of_its_images(overconfident):
    table = overconfident("multiclass", seeds=2)
    figure = magnification_reliability_figure(table)
    of_each = {
        f"{m}×, {scores_at_both_levels(part)['image/ece']:.3f}"
        for m, part in table.groupby("magnification")
    }
    assert {trace.name for trace in figure.data} == {"perfect", *of_each}
    assert magnification_reliability_figure(table[table["magnification"] == 40]) is None


def test_each_class_has_the_error_of_its_probability(overconfident):
    table = overconfident("multiclass")
    figure = class_reliability_figure(table)
    errors = [float(trace.name.rpartition(" ")[2]) for trace in figure.data[1:]]
    expected = scores_at_both_levels(table)["image/ece_classwise"]
    assert np.mean(errors) == pytest.approx(expected, abs=1e-3)
    assert [trace.name.partition(",")[0] for trace in figure.data[1:3]] == [
        "adenosis",
        "fibroadenoma",
    ]
    assert class_reliability_figure(overconfident("binary")) is None


def test_multiclass_reading_speaks_of_the_answer_not_of_malignancy(overconfident):
    table = overconfident("multiclass")
    assert "malignant" not in calibration_section(table, table).reading
