"""Threshold figures draw what their points say."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.evaluation.calibration import Calibration, calibrate_table
from breakhis_search.evaluation.threshold_figures import (
    threshold_figure,
    threshold_points,
    threshold_section,
)
from breakhis_search.evaluation.thresholds import at_threshold, lock_thresholds

LEVELS = ("image", "patient")


@pytest.fixture
def overconfident(full_tables):
    """A binary table whose logits are three times too large."""
    return calibrate_table(full_tables["binary"], Calibration((0.0, 0.0), 1 / 3))


def test_threshold_points_agree_with_at_threshold(overconfident):
    points = threshold_points(overconfident)
    for level in LEVELS:
        rows = points[points["level"] == level]
        assert rows["threshold"].is_monotonic_increasing
        row = rows.iloc[len(rows) // 3]
        point = at_threshold(overconfident, row["threshold"], level)
        assert row["sensitivity"] == pytest.approx(point["sensitivity"]["value"])
        assert row["specificity"] == pytest.approx(point["specificity"]["value"])


def test_threshold_figure_marks_the_locked_ones_on_the_lines(overconfident):
    locked = lock_thresholds(overconfident)
    figure = threshold_figure(overconfident, locked, "patient")
    marks = {trace.name.partition(":")[0]: trace for trace in figure.data[2:]}
    youden = locked.patient["youden"]
    assert list(marks) == [
        "0.5",
        f"Youden at {youden:.3f}",
        f"95 % sensitivity at {locked.patient['sensitivity_95']:.3f}",
    ]
    mark = marks[f"Youden at {youden:.3f}"]
    lines = {trace.name.split()[0]: trace for trace in figure.data[:2]}
    for value, rate in zip(mark.y, ("sensitivity", "specificity"), strict=True):
        line = lines[rate]
        assert np.interp(youden, line.x, line.y) == pytest.approx(value, abs=1e-3)


def test_threshold_lines_run_from_all_called_malignant_to_none(make_table):
    table = make_table(["benign", "malignant"], [[0.8, 0.2], [0.3, 0.7]])
    sensitivity, specificity = threshold_figure(table, lock_thresholds(table), "image").data[:2]
    assert (sensitivity.y[0], sensitivity.y[-1]) == (1.0, 0.0)
    assert (specificity.y[0], specificity.y[-1]) == (0.0, 1.0)


def test_section_holds_both_levels_and_says_how_to_read_them(overconfident):
    section = threshold_section(
        overconfident, lock_thresholds(overconfident, decision="sensitivity_95")
    )
    assert len(section.figures) == 2
    assert "decides by <b>95 % sensitivity</b>" in section.reading
