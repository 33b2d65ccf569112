"""Intervals of a difference and the verdict in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_models import simulated_model

from breakhis_search.comparison.alignment import align
from breakhis_search.comparison.difference import (
    DifferenceInterval,
    difference_interval,
    verdict,
)
from breakhis_search.comparison.permutation import SwapTest
from breakhis_search.comparison.resampling import patients_by_class, score_of_draws
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import score
from breakhis_search.evaluation.resampled_metrics import draw_weights

NAMES = ("adenosis", "fibroadenoma", "ductal_carcinoma")


def drawn_table(table: pd.DataFrame, accessions: tuple[str, ...], weights: np.ndarray):
    """Repeat the rows of each accession as often as it was drawn."""
    parts = [
        table[table["accession"] == name].assign(image=lambda rows, k=k: rows["image"] + f"#{k}")
        for name, weight in zip(accessions, weights, strict=True)
        for k in range(int(weight))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("names", [("benign", "malignant"), NAMES])
def test_score_of_a_draw_is_that_of_repeated_rows(objective, names) -> None:
    table = simulated_model([4] * len(names), seeds=2, names=names)
    aligned = align([table])
    draws = draw_weights(aligned.stratum, 5, np.random.default_rng(0))
    values = score_of_draws(aligned, 0, objective)(draws)
    for value, weights in zip(values, draws, strict=True):
        expected = score(drawn_table(table, aligned.accessions, weights), objective)
        assert value == pytest.approx(expected)


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
def test_score_of_a_draw_of_one_class_is_unknown(objective) -> None:
    aligned = align([simulated_model([2, 2])])
    benign_only = np.array([[1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(score_of_draws(aligned, 0, objective)(benign_only)[0])


def test_patients_are_counted_by_class() -> None:
    assert patients_by_class(align([simulated_model([3, 9])])) == {"benign": 3, "malignant": 9}


def test_interval_holds_the_difference() -> None:
    a = simulated_model([8, 12], separation=2.0, seeds=2)
    b = simulated_model([8, 12], separation=0.5, model=1)
    interval = difference_interval(a, b, "auroc", resamples=500)
    assert interval.difference == pytest.approx(score(a, "auroc") - score(b, "auroc"))
    assert interval.low < interval.difference < interval.high
    assert (interval.resamples, interval.reason) == (500, None)


def test_interval_of_a_model_against_itself_is_zero() -> None:
    table = simulated_model([6, 6])
    interval = difference_interval(table, table, "balanced_accuracy", resamples=100)
    assert (interval.low, interval.difference, interval.high) == (0.0, 0.0, 0.0)


def test_interval_is_paired() -> None:
    # B errs on one more patient than A and agrees everywhere else: what both share cancels.
    a = simulated_model([10, 10], separation=1.0)
    b = a.copy()
    b.loc[b["accession"] == "14-0", "logit_malignant"] += 0.5
    paired = difference_interval(a, b, "auroc", resamples=500)
    unrelated = difference_interval(a, simulated_model([10, 10], model=5), "auroc", resamples=500)
    assert paired.high - paired.low < 0.2 * (unrelated.high - unrelated.low)


def test_wider_level_gives_a_wider_interval() -> None:
    a, b = simulated_model([6, 6]), simulated_model([6, 6], model=1)
    narrow = difference_interval(a, b, "auroc", resamples=400, level=0.5)
    wide = difference_interval(a, b, "auroc", resamples=400, level=0.95)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_under_five_patients_of_a_class_there_is_no_interval() -> None:
    a, b = simulated_model([4, 9]), simulated_model([4, 9], model=1)
    interval = difference_interval(a, b, "auroc")
    assert (interval.low, interval.high, interval.resamples) == (None, None, 0)
    assert interval.reason == "too few patients: 4 benign; 5 of each class are needed"
    assert str(interval).endswith(f"(no interval: {interval.reason})")


def test_covers_the_truth_as_often_as_it_says() -> None:
    # Equal models differ by zero in truth.
    covered = [
        interval.low <= 0 <= interval.high
        for study in range(100)
        for interval in [
            difference_interval(
                simulated_model([20, 20], model=2 * study),
                simulated_model([20, 20], model=2 * study + 1),
                "auroc",
                resamples=200,
                level=0.8,
                seed=study,
            )
        ]
    ]
    assert 0.68 <= np.mean(covered) <= 0.92  # 0.8, three standard errors of the simulation


def test_other_images_have_no_difference() -> None:
    a = simulated_model([5, 5])
    with pytest.raises(ComparisonError, match="different images"):
        difference_interval(a, a.iloc[:-1], "auroc")


def outcome(difference: float, p: float) -> SwapTest:
    return SwapTest(difference, p / 2, p, 57, 10_000, exact=False)


def around(difference: float, low: float, high: float) -> DifferenceInterval:
    return DifferenceInterval(difference, low, high, 0.95, 2000, None)


def test_verdict_names_the_better_model() -> None:
    said = verdict(outcome(0.021, 0.0128), around(0.021, 0.004, 0.04), "auroc")
    assert said == "A is better than B: AUROC +0.021 [+0.004, +0.040], p = 0.013"


def test_verdict_of_a_lead_of_the_second_is_told_from_its_side() -> None:
    said = verdict(
        outcome(-0.021, 0.0004),
        around(-0.021, -0.04, -0.004),
        "balanced_accuracy",
        names=("trial 3", "trial 7"),
    )
    assert said == (
        "trial 7 is better than trial 3: balanced accuracy +0.021 [+0.004, +0.040], p < 0.001"
    )


def test_verdict_of_no_difference_says_so() -> None:
    said = verdict(outcome(0.004, 0.42), around(0.004, -0.01, 0.018), "auroc")
    assert said == (
        "no difference can be shown: AUROC +0.004 [-0.010, +0.018] (A minus B), p = 0.420"
    )


def test_verdict_says_where_test_and_interval_disagree() -> None:
    said = verdict(outcome(0.021, 0.04), around(0.021, -0.001, 0.04), "auroc")
    assert said.endswith("; the interval reaches zero, so the evidence is thin")


def test_draws_without_a_class_make_no_interval_that_is_not_a_number() -> None:
    """All five accessions of each class in one stratum: a draw may lack a class."""
    pure = simulated_model([4, 4], seeds=1)
    mixed = simulated_model([1, 1], seeds=1)
    mixed["accession"] = "mixed"
    mixed["image"] = "mixed/" + mixed["image"]
    a = pd.concat([pure, mixed], ignore_index=True)
    b = a.copy()
    logits = [column for column in b.columns if column.startswith("logit")]
    b[logits] = b[logits].to_numpy()[:, ::-1]
    interval = difference_interval(a, b, "auroc", resamples=400)
    assert interval.low is None or np.isfinite([interval.low, interval.high]).all()
    assert "nan" not in str(interval)
