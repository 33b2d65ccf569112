"""Metrics of the user's own."""

from __future__ import annotations

import sys
import types

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import ConfigError, TrialFailure
from breakhis_search.evaluation import own_metrics
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.own_metrics import check_metric, compute_own_metrics
from breakhis_search.evaluation.page import own_sections

NAMES = ("benign", "malignant")


@pytest.fixture
def metric(monkeypatch, request):
    """Turns a function into a metric that can be named."""

    def name(function) -> str:
        module = types.ModuleType(f"own_{abs(hash(request.node.nodeid))}")
        module.measure = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:measure"

    yield name
    own_metrics._load.cache_clear()


def table(seeds: int = 1) -> pd.DataFrame:
    """Three patients with four images each, scored by so many seeds."""
    rng = np.random.default_rng(3)
    parts = []
    for seed in range(seeds):
        logits = rng.normal(size=(12, 2))
        parts.append(
            pd.DataFrame(
                {
                    "image": [f"{i}.png" for i in range(12)],
                    "slide": "s",
                    "accession": np.repeat(["a", "b", "c"], 4),
                    "magnification": 40,
                    "type": "adenosis",
                    "fold": 0,
                    "seed": seed,
                    "y_true": np.repeat([0, 1, 1], 4),
                    "logit_benign": logits[:, 0],
                    "logit_malignant": logits[:, 1],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def accuracy(y_true, probabilities):
    return (probabilities.argmax(axis=1) == y_true).mean()


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_metric_written_again_is_ours_at_both_levels(metric, seeds):
    own = compute_own_metrics(table(seeds), [metric(accuracy)])
    ours = compute_metrics(table(seeds))
    assert own == {
        "own/image/measure": pytest.approx(ours["image/accuracy"]),
        "own/patient/measure": pytest.approx(ours["patient/accuracy"]),
    }


def test_without_metrics_there_is_nothing():
    assert compute_own_metrics(table(), []) == {}
    assert own_sections([], {}) == ()


def test_a_metric_sees_images_and_patients(metric):
    shapes = []

    def look(y_true, probabilities):
        shapes.append((y_true.shape, probabilities.shape, y_true.dtype, probabilities.dtype))
        assert np.allclose(probabilities.sum(axis=1), 1)
        return 0.0

    compute_own_metrics(table(), [metric(look)])
    assert shapes == [
        ((12,), (12, 2), np.int64, np.float64),
        ((3,), (3, 2), np.int64, np.float64),
    ]


def test_a_metric_cannot_change_what_others_see(metric):
    def spoil(y_true, probabilities):
        before = float(probabilities.sum())
        probabilities[:] = y_true[:, None]
        return before

    values = compute_own_metrics(table(), [metric(spoil)])
    assert values["own/image/measure"] == pytest.approx(12)
    assert values["own/patient/measure"] == pytest.approx(3)


def test_nan_is_no_value_and_a_dash_on_the_page(metric):
    own = metric(lambda y_true, probabilities: 0.5 if len(y_true) > 3 else float("nan"))
    values = compute_own_metrics(table(), [own])
    assert values == {"own/image/measure": 0.5}
    [section] = own_sections([own], values)
    assert "<td>0.500</td><td>–</td>" in section.tables


@pytest.mark.parametrize(
    ("given", "received"), [(None, "None"), ("0.5", "'0.5'"), (float("inf"), "inf"), ([0.5], "0.5")]
)
def test_what_is_no_number_fails_the_trial(metric, given, received):
    own = metric(lambda y_true, probabilities: given)
    with pytest.raises(TrialFailure, match=f"gives no number.*NaN where.*received .*{received}"):
        compute_own_metrics(table(), [own])
    with pytest.raises(ConfigError, match="gives no number .of an example: 8 rows"):
        check_metric(own, NAMES)


def test_what_raises_fails_the_trial_and_says_why(metric):
    own = metric(lambda y_true, probabilities: probabilities[:, 7])
    with pytest.raises(TrialFailure, match="cannot be computed; received IndexError"):
        compute_own_metrics(table(), [own])
    with pytest.raises(ConfigError, match="cannot be computed.*example.*IndexError"):
        check_metric(own, NAMES)
