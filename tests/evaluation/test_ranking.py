"""Areas under ranked scores agree with scikit-learn, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from breakhis_search.evaluation.ranking import (
    area_under_roc,
    average_precision,
    count_by_threshold,
)


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn(seed, decimals):
    rng = np.random.default_rng(seed)
    labels = rng.random(300) < 0.2
    scores = np.round(rng.normal(labels, 1.0), decimals)  # few decimals make many ties
    counts = count_by_threshold(labels, scores)
    assert area_under_roc(counts) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(counts) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


def test_constant_score_is_worth_chance():
    counts = count_by_threshold(np.array([True, False, False, False]), np.full(4, 0.3))
    assert area_under_roc(counts) == 0.5
    assert average_precision(counts) == 0.25  # the share of positives


@pytest.mark.parametrize("only", [True, False])
def test_one_class_alone_has_no_area(only):
    counts = count_by_threshold(np.array([only, only]), np.array([0.1, 0.9]))
    assert area_under_roc(counts) is None
    assert average_precision(counts) is None
