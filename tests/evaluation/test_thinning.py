"""Thinned lines look the same."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.evaluation.thinning import thin_line


def test_straight_line_keeps_its_ends_only():
    x = np.linspace(0, 1, 1001)
    assert thin_line(x, 2 * x).tolist() == [0, 1000]


def test_every_corner_of_a_staircase_is_kept():
    x = np.array([0.0, 0.0, 0.5, 0.5, 1.0])
    y = np.array([0.0, 0.4, 0.4, 1.0, 1.0])
    assert thin_line(x, y).tolist() == [0, 1, 2, 3, 4]


def test_a_corner_that_stands_there_twice_is_kept():
    x = np.array([0.0, 0.5, 0.5, 0.5, 1.0])
    y = np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    kept = thin_line(x, y)
    assert list(zip(x[kept], y[kept], strict=True)) == [(0, 0), (0.5, 0), (0.5, 1), (1, 1)]


def test_spike_along_a_vertical_step_is_kept():
    x, y = np.array([0.0, 0.0, 0.0]), np.array([0.2, 0.9, 0.4])
    assert thin_line(x, y).tolist() == [0, 1, 2]


def test_limit_is_respected_on_noise():
    rng = np.random.default_rng(0)
    kept = thin_line(np.linspace(0, 1, 5000), rng.random(5000), limit=500)
    assert len(kept) == 500
    assert (np.diff(kept) > 0).all()


def test_thinned_line_stays_within_the_tolerance():
    x = np.linspace(0, 1, 20_000)
    y = np.sin(6 * x)
    kept = thin_line(x, y, tolerance=1e-3)
    assert np.abs(np.interp(x, x[kept], y[kept]) - y).max() < 1e-2
    assert len(kept) < 100


@pytest.mark.parametrize("points", [1, 2])
def test_shortest_lines_are_kept_whole(points):
    line = np.arange(points, dtype=float)
    assert thin_line(line, line).tolist() == list(range(points))
