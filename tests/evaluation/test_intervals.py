"""Which interval each metric gets, what it rests on, and the reason where it has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation.interval_bounds import wilson_bounds, wilson_mean_bounds
from breakhis_search.evaluation.intervals import (
    Basis,
    Interval,
    bootstrap_intervals,
    groups_needed,
    method_of,
    metric_interval,
)

EIGHT = {f"type{index}": 7 for index in range(8)}


def patients_table(make_table, benign: int, malignant: int, *, images: int = 4, seed: int = 0):
    """Return a table of patients whose images are alike."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [benign, malignant])
    logit = np.repeat(1.5 * (2 * label - 1) + rng.normal(0, 1.5, len(label)), images)
    p = 1 / (1 + np.exp(-(logit + rng.normal(0, 1, len(logit)))))
    true = [("benign", "malignant")[index] for index in np.repeat(label, images)]
    accessions = [f"14-{index}" for index in np.repeat(np.arange(len(label)), images)]
    return make_table(true, np.column_stack([1 - p, p]), accessions=accessions)


@pytest.fixture
def table(make_table) -> pd.DataFrame:
    return patients_table(make_table, 8, 12)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("image/auroc", "bootstrap_logit"),
        ("image/mcc", "bootstrap_logit"),
        ("image/nll", "bootstrap_percentile"),
        ("patient/recognition_rate", "bootstrap_logit"),
        ("patient/auroc", "bootstrap_percentile"),
        ("patient/f1_macro", "bootstrap_percentile"),
        ("patient/accuracy", "wilson"),
        ("patient_majority_vote/recall_benign", "wilson"),
        ("patient_mean_logit/recall_macro", "wilson_mean"),
        ("magnification_40/patient/balanced_accuracy", "wilson_mean"),
        ("magnification_400/image/accuracy", "bootstrap_logit"),
    ],
)
def test_method_of_a_metric(name, method) -> None:
    assert method_of(name) == method


def test_groups_of_a_metric_are_those_it_cannot_do_without() -> None:
    assert groups_needed("image/recall_type3", EIGHT) == {"type3": 7}
    assert groups_needed("patient/auroc_type3", EIGHT) == {"type3": 7, "others": 49}
    assert groups_needed("image/precision_type3", EIGHT) == {"type3": 7, "others": 49}
    assert groups_needed("image/f1_malignant", {"benign": 3, "malignant": 10}) == {
        "malignant": 10,
        "benign": 3,
    }
    assert groups_needed("patient/accuracy", EIGHT) == {"patients": 56}
    assert groups_needed("image/mcc", EIGHT) == {"patients": 56}
    assert groups_needed("image/mcc", {"benign": 6, "malignant": 9}) == {
        "benign": 6,
        "malignant": 9,
    }
    assert groups_needed("image/f1_macro", EIGHT | {"type0": 0}) == {
        name: 7 for name in EIGHT if name != "type0"
    }


def test_every_metric_has_an_interval_or_a_reason(table) -> None:
    intervals = bootstrap_intervals(table, resamples=200)
    assert set(intervals.known) | set(intervals.reasons) == set(intervals.values)
    assert not set(intervals.known) & set(intervals.reasons)


def test_intervals_hold_their_metric(table) -> None:
    intervals = bootstrap_intervals(table, resamples=400)
    for name, interval in intervals.known.items():
        assert interval.low <= intervals.values[name] <= interval.high, name


def test_shares_of_patients_have_wilsons_interval(table) -> None:
    intervals = bootstrap_intervals(table, resamples=50)
    for name, n in (("patient/accuracy", 20), ("patient_majority_vote/recall_benign", 8)):
        interval = intervals.known[name]
        assert (interval.low, interval.high) == wilson_bounds(intervals.values[name], n, 0.95)
        assert (interval.n, interval.method) == (n, "wilson")


def test_balanced_accuracy_of_patients_adds_the_recalls_of_the_classes(table) -> None:
    intervals = bootstrap_intervals(table, resamples=50)
    recalls = [intervals.values[f"patient/recall_{name}"] for name in ("benign", "malignant")]
    interval = intervals.known["patient/balanced_accuracy"]
    expected = wilson_mean_bounds(list(zip(recalls, (8, 12), strict=True)), 0.95)
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_below_five_patients_of_a_class_what_needs_it_has_no_interval(make_table) -> None:
    intervals = bootstrap_intervals(patients_table(make_table, 4, 12), resamples=100)
    ranking = ("image/auroc", "patient/auroc")
    weighing = ("image/recall_benign", "image/balanced_accuracy", "image/mcc")
    pooled = ("image/accuracy", "patient/accuracy", "patient/recognition_rate", "image/nll")
    for name in (*ranking, *weighing, *pooled):
        assert name not in intervals.known
        assert intervals.reasons[name] == "too few patients for an interval (4 benign)"
    assert intervals.known["image/recall_malignant"].n == 12


def test_pooled_metric_rests_on_all_patients_where_every_class_has_five(make_table) -> None:
    intervals = bootstrap_intervals(patients_table(make_table, 5, 12), resamples=100)
    assert intervals.known["image/accuracy"].n == 17


def test_five_patients_of_a_class_are_enough(make_table) -> None:
    intervals = bootstrap_intervals(patients_table(make_table, 5, 12), resamples=100)
    assert intervals.known["image/auroc"].n == 5


def test_no_number_is_printed_where_there_is_no_interval(make_table) -> None:
    frame = bootstrap_intervals(patients_table(make_table, 4, 12), resamples=100).to_frame()
    row = frame.set_index("metric").loc["image/auroc"]
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])
    assert row["n"] is pd.NA
    assert row["method"] == ""
    assert row["reason"].startswith("too few patients")


def test_perfect_ranking_has_no_interval_and_says_why(make_table) -> None:
    label = np.repeat([0, 1], [6, 6])
    p = np.where(label == 1, 0.9, 0.1)
    table = make_table([("benign", "malignant")[i] for i in label], np.column_stack([1 - p, p]))
    intervals = bootstrap_intervals(table, resamples=100)
    assert "same in every draw" in intervals.reasons["image/auroc"]
    assert intervals.known["patient/accuracy"].high == 1.0  # Wilson's has one even here


def test_metric_that_most_draws_leave_undefined_has_no_interval() -> None:
    draws = np.array([0.5, np.nan] * 50)
    basis = Basis({"benign": 9, "malignant": 9}, {})
    found = metric_interval("image/precision_benign", 0.5, draws, basis, level=0.95)
    assert found == "it has no value in 50 of 100 draws of patients"


def test_correlation_may_reach_below_zero() -> None:
    draws = np.random.default_rng(0).normal(0.0, 0.2, 500)
    basis = Basis({"benign": 9, "malignant": 9}, {})
    found = metric_interval("image/mcc", 0.05, draws, basis, level=0.95)
    assert isinstance(found, Interval)
    assert found.low < 0 < found.high


def test_same_seed_gives_the_same_intervals(table) -> None:
    once, again, other = (bootstrap_intervals(table, resamples=100, seed=s) for s in (1, 1, 2))
    assert once.known == again.known
    assert once.known["image/auroc"] != other.known["image/auroc"]


def test_wider_level_gives_wider_intervals(table) -> None:
    narrow = bootstrap_intervals(table, resamples=300, level=0.8).known
    wide = bootstrap_intervals(table, resamples=300, level=0.95).known
    for name, interval in narrow.items():
        assert wide[name].low <= interval.low
        assert wide[name].high >= interval.high


def test_copies_of_images_do_not_narrow_an_interval(make_table) -> None:
    once = patients_table(make_table, 8, 12, images=1)
    copies = pd.concat(
        [once.assign(image=once["image"] + f"#{k}") for k in range(10)], ignore_index=True
    )
    few, many = (bootstrap_intervals(t, resamples=300).known for t in (once, copies))
    assert few.keys() == many.keys()
    for name, interval in few.items():
        assert (many[name].low, many[name].high) == pytest.approx((interval.low, interval.high))


def test_repeated_seeds_do_not_narrow_an_interval(table) -> None:
    thrice = pd.concat([table.assign(seed=seed) for seed in range(3)], ignore_index=True)
    one, three = (bootstrap_intervals(t, resamples=200) for t in (table, thrice))
    assert three.values == pytest.approx(one.values)
    for name, interval in one.known.items():
        other = three.known[name]
        assert (other.low, other.high) == pytest.approx((interval.low, interval.high))


def test_empty_table_is_refused(table) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        bootstrap_intervals(table.iloc[:0])


def test_interval_reads_as_two_numbers() -> None:
    assert str(Interval(0.7012, 0.8896, 13, "wilson")) == "[0.701, 0.890]"
