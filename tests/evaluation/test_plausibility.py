"""Scores too good for disjoint patients raise an alarm, honest ones do not."""

from __future__ import annotations

import pytest

from breakhis_search.evaluation.plausibility import MIN_PATIENTS, implausible

MANY = 57


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("binary", {"image/accuracy": 0.97}),
        ("binary", {"image/auroc": 0.99}),
        ("multiclass", {"image/accuracy": 0.80}),
    ],
)
def test_score_at_the_limit_is_implausible(task, metrics):
    [warning] = implausible(metrics, task, MANY)
    assert next(iter(metrics)) in warning
    assert "look for a leak" in warning


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("binary", {"image/accuracy": 0.9699, "image/auroc": 0.9899}),
        ("binary", {"image/accuracy": 0.93, "image/auroc": 0.97, "patient/accuracy": 1.0}),
        ("multiclass", {"image/accuracy": 0.79, "image/auroc": 0.995}),
        ("multiclass", {}),
    ],
)
def test_published_scores_are_plausible(task, metrics):
    assert implausible(metrics, task, MANY) == []


def test_every_score_that_is_too_good_is_told():
    assert len(implausible({"image/accuracy": 1.0, "image/auroc": 1.0}, "binary", MANY)) == 2


def test_few_patients_say_nothing():
    metrics = {"image/accuracy": 1.0}
    assert implausible(metrics, "binary", MIN_PATIENTS - 1) == []
    assert implausible(metrics, "binary", MIN_PATIENTS) != []
