"""Thresholds that are locked out-of-fold, and what they do elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import probabilities_of
from breakhis_search.evaluation.thresholds import (
    RULES,
    Thresholds,
    at_threshold,
    at_threshold_of_others,
    lock_thresholds,
    locked_metrics,
)


@pytest.fixture
def scored(make_table):
    """Maker of a binary table from (true class, probability of malignant, accession)."""

    def make(*cases):
        true, malignant, accessions = zip(*cases, strict=True)
        answers = [[1 - p, p] for p in malignant]
        return make_table(true, answers, accessions=accessions)

    return make


def each_its_own_patient(benign, malignant):
    cases = [("benign", p) for p in benign] + [("malignant", p) for p in malignant]
    return [(true, p, f"{i:03d}") for i, (true, p) in enumerate(cases)]


@pytest.fixture
def overlapping(scored):
    """Benign 0.1, 0.2, 0.6; malignant 0.4, 0.7, 0.8, 0.9: every image a patient."""
    return scored(*each_its_own_patient([0.1, 0.2, 0.6], [0.4, 0.7, 0.8, 0.9]))


def test_youden_by_hand_takes_the_threshold_of_higher_sensitivity_on_a_tie(scored):
    # J = 3/4 - 0 from 0.7 on, and 1 - 1/4 from 0.4 on; next below 0.4 is 0.2
    table = scored(*each_its_own_patient([0.1, 0.15, 0.2, 0.6], [0.4, 0.7, 0.8, 0.9]))
    assert lock_thresholds(table).image["youden"] == pytest.approx(0.3)


def test_youden_reaches_the_best_sum_of_scikit_learns_roc_curve(full_tables):
    table = full_tables["binary"]
    scores, y_true = probabilities_of(table)[:, 1], table["y_true"].to_numpy()
    fpr, tpr, _ = roc_curve(y_true, scores, drop_intermediate=False)
    point = at_threshold(table, lock_thresholds(table).image["youden"], "image")
    reached = point["sensitivity"]["value"] + point["specificity"]["value"] - 1
    assert reached == pytest.approx((tpr - fpr).max())


def test_separable_data_are_cut_in_the_middle_of_the_gap(scored):
    table = scored(*each_its_own_patient([0.1, 0.2], [0.8, 0.9]))
    assert lock_thresholds(table).image["youden"] == pytest.approx(0.5)


def test_target_sensitivity_takes_the_highest_threshold_that_reaches_it(scored):
    malignant = [i / 41 for i in range(1, 41)]
    table = scored(*each_its_own_patient([0.5], malignant))
    threshold = lock_thresholds(table).image["sensitivity_95"]
    assert threshold == pytest.approx(3 / 41)  # two of forty may be missed
    assert at_threshold(table, threshold, "image")["sensitivity"]["value"] == 0.95
    missed = at_threshold(table, np.nextafter(threshold, 1), "image")["sensitivity"]
    assert missed["value"] < 0.95


def test_patients_have_thresholds_of_their_own_mean_probability(scored):
    table = scored(
        ("benign", 0.1, "a"),
        ("benign", 0.9, "a"),  # mean 0.5
        ("malignant", 0.6, "b"),
        ("malignant", 0.8, "b"),  # mean 0.7
    )
    locked = lock_thresholds(table)
    assert locked.patient["youden"] == pytest.approx(0.6)
    assert locked.patient["sensitivity_95"] == pytest.approx(0.7)
    assert locked.image["sensitivity_95"] == pytest.approx(0.6)


def test_seeds_are_pooled_case_by_case_and_not_averaged(scored):
    first = scored(("benign", 0.1, "a"), ("malignant", 0.9, "b"))
    second = scored(("benign", 0.7, "a"), ("malignant", 0.3, "b")).assign(seed=1)
    point = at_threshold(pd.concat([first, second], ignore_index=True), 0.5, "patient")
    assert point["seeds"] == 2
    assert (point["sensitivity"]["right"], point["sensitivity"]["of"]) == (1, 2)
    assert point["sensitivity"]["patients"] == 1


def test_rates_by_hand(overlapping):
    point = at_threshold(overlapping, 0.5, "image")
    shares = {rate: (point[rate]["right"], point[rate]["of"]) for rate in ("sensitivity", "npv")}
    assert shares == {"sensitivity": (3, 4), "npv": (2, 3)}
    assert point["specificity"]["value"] == pytest.approx(2 / 3)
    assert point["ppv"]["value"] == pytest.approx(3 / 4)


def test_a_score_at_the_threshold_is_called_malignant(make_table):
    table = make_table(["malignant", "benign"], [[0.5, 0.5], [0.5, 0.5]])
    point = at_threshold(table, 0.5, "image")
    assert point["sensitivity"]["value"] == 1.0
    assert point["specificity"]["value"] == 0.0


def test_a_rate_of_no_case_has_no_value(overlapping):
    point = at_threshold(overlapping, 0.95, "patient")
    assert point["ppv"] == {
        "value": None,
        "right": 0,
        "of": 0,
        "patients": 0,
        "low": None,
        "high": None,
    }


def test_patients_have_the_wilson_interval_of_scipy(scored):
    table = scored(*each_its_own_patient([0.1] * 9 + [0.9], [0.8] * 7))
    found = at_threshold(table, 0.5, "patient")["specificity"]
    expected = binomtest(9, 10).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_seeds_do_not_narrow_the_interval(scored):
    table = scored(*each_its_own_patient([0.1] * 9 + [0.9], [0.8] * 7))
    repeated = pd.concat([table.assign(seed=s) for s in range(3)], ignore_index=True)
    once, thrice = (at_threshold(t, 0.5, "patient")["specificity"] for t in (table, repeated))
    assert (thrice["low"], thrice["high"]) == pytest.approx((once["low"], once["high"]))


def test_neither_images_nor_four_patients_have_an_interval(scored):
    table = scored(*each_its_own_patient([0.1] * 4, [0.8] * 7))
    assert at_threshold(table, 0.5, "image")["sensitivity"]["low"] is None
    assert at_threshold(table, 0.5, "patient")["specificity"]["low"] is None
    assert at_threshold(table, 0.5, "patient")["sensitivity"]["low"] is not None


def test_an_operating_point_is_json(overlapping):
    point = at_threshold(overlapping, 0.5, "patient")
    assert json.loads(json.dumps(point)) == point


def test_each_patient_is_judged_by_the_threshold_of_the_others(scored):
    # Alone, "f" pulls the 95 % threshold down to itself; the others' threshold misses it.
    table = scored(*each_its_own_patient([0.1, 0.2, 0.3], [0.4, 0.8, 0.9]))
    locked = lock_thresholds(table).image["sensitivity_95"]
    assert at_threshold(table, locked, "image")["sensitivity"]["value"] == 1.0
    honest = at_threshold_of_others(table, "image", "sensitivity_95")
    assert honest["sensitivity"]["right"] == 2
    assert honest["threshold"] == pytest.approx(locked)


def test_judging_by_others_needs_both_classes_without_a_group(scored):
    table = scored(*each_its_own_patient([0.1], [0.8, 0.9]))
    with pytest.raises(DataError, match="a threshold cannot be chosen.*received only malignant"):
        at_threshold_of_others(table, "patient")


def test_thresholds_survive_json(overlapping):
    locked = lock_thresholds(overlapping, decision="sensitivity_95")
    again = Thresholds.from_dict(json.loads(json.dumps(locked.to_dict())))
    assert again == locked
    assert again.value("image") == locked.image["sensitivity_95"]


def test_locked_metrics_name_every_rule_and_the_one_that_decides(overlapping):
    locked = lock_thresholds(overlapping, decision="sensitivity_95")
    metrics = locked_metrics(overlapping, locked)
    assert metrics["image/sensitivity"] == metrics["image/sensitivity_at_sensitivity_95"] == 1.0
    assert metrics["patient/sensitivity_at_half"] == 0.75
    assert {f"image/specificity_at_{rule}" for rule in RULES} <= set(metrics)


def test_rates_without_a_value_are_left_out_of_locked_metrics(scored):
    table = scored(("malignant", 0.9, "a"))
    locked = Thresholds(dict.fromkeys(RULES, 0.5), dict.fromkeys(RULES, 0.5))
    assert sorted(locked_metrics(table, locked))[:2] == ["image/ppv", "image/ppv_at_half"]
    assert "image/specificity" not in locked_metrics(table, locked)


def test_one_class_alone_has_no_threshold(scored):
    with pytest.raises(DataError, match="expected benign and malignant cases"):
        lock_thresholds(scored(("benign", 0.1, "a"), ("benign", 0.2, "b")))


def test_several_classes_have_no_threshold(full_tables):
    with pytest.raises(DataError, match="a threshold needs one positive class"):
        lock_thresholds(full_tables["multiclass"])


def test_nothing_has_no_rates(overlapping):
    with pytest.raises(DataError, match="there is nothing to evaluate"):
        at_threshold(overlapping.iloc[:0], 0.5, "image")
