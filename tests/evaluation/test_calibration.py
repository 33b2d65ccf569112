"""Temperature, prior correction, and how well probabilities are kept."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import brier_score_loss, log_loss

from breakhis_search.data.sampling import TrainingRows, prior_correction
from breakhis_search.errors import DataError
from breakhis_search.evaluation.calibration import (
    Calibration,
    calibrate_table,
    calibration_metrics,
    cross_fit,
    fit_calibration,
    held_out_groups,
    patient_weights,
    scores_at_both_levels,
)
from breakhis_search.evaluation.calibration_scores import (
    brier,
    calibration_error,
    classwise_ece,
    ece,
    equal_mass_bins,
    error_by_chance,
    nll,
)
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.predictions import (
    logits_of,
    probabilities_of,
    softmax,
    tables_by_seed,
)
from breakhis_search.evaluation.temperature import TEMPERATURE_RANGE, fit_temperature


def drawn(n: int, n_classes: int, *, sharpness: float, seed: int = 0):
    """Labels drawn from the softmax of logits, and those logits times ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, n_classes))
    shares = softmax(logits).cumsum(axis=1)
    y_true = (rng.random((n, 1)) > shares).sum(axis=1).clip(max=n_classes - 1)
    return y_true, logits * sharpness


def minimised_directly(logits, y_true, weights):
    """The temperature by a search of its own, over the weighted likelihood written out."""

    def loss(log_temperature):
        chosen = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -(weights * chosen[np.arange(len(y_true)), y_true]).sum()

    return float(np.exp(minimize_scalar(loss, bracket=(-1, 1), tol=1e-10).x))


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_temperature_is_that_of_a_direct_minimisation(n_classes, sharpness):
    y_true, logits = drawn(800, n_classes, sharpness=sharpness)
    weights = np.random.default_rng(1).uniform(0.1, 3, len(y_true))
    expected = minimised_directly(logits, y_true, weights)
    assert fit_temperature(logits, y_true, weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n_classes", [2, 8])
def test_temperature_recovers_how_much_too_sharp_logits_are(n_classes):
    y_true, logits = drawn(20_000, n_classes, sharpness=2.5)
    assert fit_temperature(logits, y_true) == pytest.approx(2.5, rel=0.03)


def test_temperature_of_logits_with_an_absent_class():
    y_true, logits = drawn(500, 4, sharpness=2.0)
    kept = y_true != 1
    found = fit_temperature(logits[kept], y_true[kept])
    expected = minimised_directly(logits[kept], y_true[kept], np.ones(kept.sum()))
    assert found == pytest.approx(expected, rel=1e-5)


def test_logits_that_look_like_probabilities_are_taken_as_logits():
    y_true = np.array([0, 1, 2, 0, 1, 2, 1])
    logits = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])[[0, 1, 2, 0, 1, 2, 0]]
    expected = minimised_directly(logits, y_true, np.ones(7))
    assert fit_temperature(logits, y_true) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("right", "expected"), [(True, 0), (False, 1)])
def test_temperature_stays_in_its_range_where_likelihood_has_no_optimum(right, expected):
    y_true = np.array([0, 1] * 10)
    logits = np.eye(2)[y_true if right else 1 - y_true]
    assert fit_temperature(logits, y_true) == TEMPERATURE_RANGE[expected]


def test_fitting_warns_of_nothing_and_leaves_the_warning_filters_alone():
    before = list(warnings.filters)
    fit_temperature([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1], [1.0, 2.0, 1.0])
    assert warnings.filters == before


def test_patients_of_a_class_weigh_the_same_whatever_their_images_and_seeds(full_tables):
    table = full_tables["multiclass"]
    table = pd.concat([table, table.iloc[:900].assign(seed=1)], ignore_index=True)
    weights = pd.Series(patient_weights(table))
    assert weights.mean() == pytest.approx(1.0)
    by_patient = weights.groupby([table["y_true"], table["accession"]]).sum()
    assert by_patient.groupby(level=0).std().max() == pytest.approx(0.0, abs=1e-6)
    by_class = weights.groupby(table["y_true"]).sum()
    assert by_class.to_list() == pytest.approx(
        table["y_true"].value_counts().sort_index().to_list()
    )


def test_a_patient_of_many_images_does_not_set_the_temperature(make_table):
    # Patient "a" (90 images) is always right, patients b-e (10 each) are right half of the time.
    sure, wrong = [0.9, 0.1], [0.1, 0.9]
    true = ["benign"] * 130 + ["malignant"] * 2
    answers = [sure] * 90 + [sure, wrong] * 20 + [wrong] * 2
    accessions = ["a"] * 90 + [who for who in "bcde" for _ in range(10)] + ["f", "g"]
    table = make_table(true, answers, accessions=accessions)
    found = fit_calibration(table, [0.0, 0.0]).temperature
    unweighted = fit_temperature(logits_of(table), table["y_true"])
    # of benign mass, 4/5 is half right: p = 0.6 of 130/132; and 2/132 wholly right
    share = (0.6 * 130 + 2) / 132
    assert found == pytest.approx(np.log(9) / np.log(share / (1 - share)), rel=1e-4)
    assert unweighted < 0.6 * found


def test_calibration_is_fitted_after_the_prior_correction(full_tables):
    table, correction = full_tables["binary"], np.array([-0.7, 0.3])
    calibration = fit_calibration(table, correction)
    expected = minimised_directly(
        logits_of(table) + correction, table["y_true"].to_numpy(), patient_weights(table)
    )
    assert calibration.prior_correction == (-0.7, 0.3)
    assert calibration.temperature == pytest.approx(expected, rel=1e-5)


def test_prior_correction_recovers_the_natural_prior_of_a_balanced_model():
    # One feature x ~ N(±1, 1). A balanced model answers logit 2x; the natural share of 1 is 0.2.
    rng = np.random.default_rng(3)
    y = (rng.random(40_000) < 0.2).astype(np.int64)
    x = rng.normal(2 * y - 1, 1.0)
    names = np.array(["-"] * len(y))
    correction = prior_correction(TrainingRows(y, names, names), "patient_balanced", 2)
    logits = np.stack([np.zeros_like(x), 2 * x], axis=1)
    assert fit_temperature(logits + correction, y) == pytest.approx(1.0, rel=0.03)
    corrected = Calibration(tuple(correction), 1.0).calibrated_probabilities(logits)
    assert corrected[:, 1].mean() == pytest.approx(0.2, abs=0.005)
    assert classwise_ece(y, corrected) < 0.01
    assert classwise_ece(y, softmax(logits)) > 0.05


def test_ece_of_the_top_label_is_blind_to_a_shifted_prior_that_the_classwise_one_sees():
    # Calls class 0 with too little and class 1 with too much confidence, by the same amount.
    y_true = np.array([0] * 10 + [1] * 6 + [0] * 4)
    answers = np.array([[0.8, 0.2]] * 10 + [[0.2, 0.8]] * 10)
    assert ece(y_true, answers) == pytest.approx(0.0)
    assert classwise_ece(y_true, answers) == pytest.approx(0.2)


def test_calibrating_a_table_changes_its_logits_and_nothing_else(full_tables):
    table = full_tables["binary"]
    calibration = Calibration((0.2, -0.2), 1.7)
    calibrated = calibrate_table(table, calibration)
    others = [column for column in table if not column.startswith("logit_")]
    pd.testing.assert_frame_equal(calibrated[others], table[others])
    expected = calibration.calibrated_probabilities(logits_of(table))
    assert probabilities_of(calibrated) == pytest.approx(expected, abs=1e-6)


def test_calibration_survives_json(tmp_path):
    import json

    calibration = Calibration((0.1, -0.3), 1.25)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize("correction", [[0.0], [0.0, np.nan], [[0.0, 0.0]]])
def test_a_correction_that_does_not_fit_is_an_error(make_table, correction):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    with pytest.raises(DataError, match="the prior correction does not fit"):
        fit_calibration(table, correction)


def test_nothing_to_calibrate_is_an_error(make_table):
    with pytest.raises(DataError, match="there is nothing to calibrate"):
        fit_calibration(make_table(["benign"], [[0.9, 0.1]]).iloc[:0], [0.0, 0.0])


def test_held_out_groups_keep_accessions_whole_and_cover_every_row_once(full_tables):
    table = full_tables["multiclass"]
    table = pd.concat([table, table.assign(seed=1)], ignore_index=True)
    groups = list(held_out_groups(table))
    assert len(groups) == 10
    assert np.sum(groups, axis=0).tolist() == [1] * len(table)
    held = [set(table["accession"][rows]) for rows in groups]
    assert sum(map(len, held)) == table["accession"].nunique()


def test_cross_fitting_never_uses_a_patient_for_its_own_temperature(make_table):
    # Patient "z" alone is wrong: everyone else's temperature hears of it, its own does not.
    right, wrong = [0.8, 0.2], [0.2, 0.8]
    table = make_table(
        ["benign"] * 6, [right] * 5 + [wrong], accessions=["v", "w", "x", "y", "y", "z"]
    )
    answers = pd.Series(probabilities_of(cross_fit(table, [0.0, 0.0]))[:, 0], table["accession"])
    # z's temperature comes from patients who are always right: the sharpest that is believed
    odds = (1 / 4) ** (1 / TEMPERATURE_RANGE[0])
    assert answers["z"] == pytest.approx(odds / (1 + odds), rel=1e-3)
    assert answers["v"] == pytest.approx(3 / 4, rel=1e-4)  # of w, x, y, z three are right


def test_cross_fitting_keeps_the_order_of_the_rows(full_tables):
    table = full_tables["binary"].sample(frac=1.0, random_state=0)
    fitted = cross_fit(table, [0.0, 0.0])
    assert fitted["image"].tolist() == table["image"].tolist()
    assert fitted.index.tolist() == table.index.tolist()


def test_one_accession_cannot_be_cross_fitted(make_table):
    table = make_table(["benign"] * 2, [[0.9, 0.1]] * 2, accessions=["a", "a"])
    with pytest.raises(DataError, match="cannot be judged on other patients"):
        cross_fit(table, [0.0, 0.0])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_calibration_of_overconfident_answers_gets_better(full_tables, task):
    table = full_tables[task].copy()
    logits = [column for column in table if column.startswith("logit_")]
    table[logits] *= 3
    metrics = calibration_metrics(table, np.zeros(len(logits)))
    for score in ("nll", "brier", "ece"):
        before, after = (metrics[f"calibration/{s}/image/{score}"] for s in ("before", "after"))
        assert after < before
    assert 0 < metrics["calibration/after/patient/ece_by_chance"] < 0.3


def test_scores_of_several_seeds_are_their_mean(full_tables):
    first = full_tables["binary"]
    second = calibrate_table(first, Calibration((0.0, 0.0), 0.4)).assign(seed=1)
    both = scores_at_both_levels(pd.concat([first, second], ignore_index=True))
    each = [scores_at_both_levels(part) for part in (first, second)]
    assert both == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in both})


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_likelihood_and_brier_score_are_those_of_the_metrics(full_tables, task):
    table = full_tables[task]
    scores, metrics = scores_at_both_levels(table), compute_metrics(table)
    for level in ("image", "patient"):
        for name in ("nll", "brier"):
            assert scores[f"{level}/{name}"] == pytest.approx(metrics[f"{level}/{name}"])


@pytest.mark.parametrize("n_classes", [2, 5])
def test_nll_and_brier_score_agree_with_scikit_learn(n_classes):
    y_true, logits = drawn(300, n_classes, sharpness=1.5)
    answers = softmax(logits)
    assert nll(y_true, answers) == pytest.approx(log_loss(y_true, answers))
    expected = brier_score_loss(y_true, answers if n_classes > 2 else answers[:, 1])
    assert brier(y_true, answers) == pytest.approx(expected)


def test_nll_of_an_impossible_event_is_infinite():
    assert nll(np.array([1]), np.array([[1.0, 0.0]])) == np.inf


def test_ece_by_hand_over_two_bins():
    # Ten answers at 0.6 of which 5 are right, ten at 0.9 of which 8 are: (10·0.1 + 10·0.1) / 20.
    confidence = np.repeat([0.6, 0.9], 10)
    y_true = np.array([0] * 5 + [1] * 5 + [0] * 8 + [1] * 2)
    answers = np.stack([confidence, 1 - confidence], axis=1)
    assert ece(y_true, answers) == pytest.approx(0.1)
    assert classwise_ece(y_true, answers) == pytest.approx(0.1)


def test_classwise_ece_by_hand_counts_an_absent_class():
    answers = np.tile([0.5, 0.3, 0.2], (10, 1))
    y_true = np.array([0] * 6 + [1] * 4)
    assert ece(y_true, answers) == pytest.approx(0.1)
    assert classwise_ece(y_true, answers) == pytest.approx((0.1 + 0.1 + 0.2) / 3)


def test_calibration_error_does_not_depend_on_the_order_of_tied_rows():
    rng = np.random.default_rng(0)
    claimed = rng.choice([0.2, 0.7, 0.9], 400)
    happened = rng.random(400) < 0.5
    order = rng.permutation(400)
    assert calibration_error(claimed[order], happened[order]) == pytest.approx(
        calibration_error(claimed, happened)
    )


@pytest.mark.parametrize("n", [15, 57, 341, 7909])
def test_bins_of_distinct_values_hold_equally_many(n):
    values = np.random.default_rng(0).permutation(n) / n
    bins = equal_mass_bins(values, 5)
    assert np.ptp(np.bincount(bins)) <= 1
    assert (np.diff(bins[np.argsort(values)]) >= 0).all()


def test_values_that_are_all_equal_are_one_bin():
    assert equal_mass_bins(np.full(100, 0.5), 10).tolist() == [0] * 100


def test_error_by_chance_is_what_calibrated_answers_show_on_average():
    rng = np.random.default_rng(5)
    claimed = rng.uniform(0.5, 1.0, 60)
    shown = [calibration_error(claimed, rng.random(60) < claimed) for _ in range(2000)]
    assert error_by_chance(claimed, draws=4000) == pytest.approx(np.mean(shown), rel=0.03)


def test_seeds_are_scored_apart(full_tables):
    table = pd.concat([full_tables["binary"].assign(seed=s) for s in (0, 1)], ignore_index=True)
    assert scores_at_both_levels(table) == pytest.approx(
        scores_at_both_levels(tables_by_seed(table)[0])
    )
