"""Metrics agree with hand-computed cases and with scikit-learn, and undefined ones are left out."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import DataError
from breakhis_search.evaluation.metrics import (
    HEADLINE_METRICS,
    compute_metrics,
    epoch_score,
    score,
    undefined_metrics,
)
from breakhis_search.evaluation.predictions import logits_of
from breakhis_search.evaluation.samples import LEVELS, sample_of

TYPES = class_names("multiclass")
SURE_BENIGN, SURE_MALIGNANT = [0.9, 0.1], [0.2, 0.8]


@pytest.fixture
def four_images(make_table):
    """Two benign (one taken for malignant) and two malignant images of three patients."""
    return make_table(
        ["benign", "benign", "malignant", "malignant"],
        [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]],
        accessions=["p", "p", "q", "r"],
    )


def test_image_metrics_by_hand(four_images):
    metrics = compute_metrics(four_images)
    assert metrics["image/accuracy"] == 0.75
    assert metrics["image/balanced_accuracy"] == 0.75
    assert metrics["image/precision_malignant"] == pytest.approx(2 / 3)
    assert metrics["image/recall_benign"] == 0.5
    assert metrics["image/f1_malignant"] == pytest.approx(0.8)
    assert metrics["image/f1_macro"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert metrics["image/auroc"] == 0.75  # 0.8 and 0.6 against 0.1 and 0.7: three of four
    assert metrics["image/average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["image/mcc"] == pytest.approx(1 / math.sqrt(3))
    assert metrics["image/nll"] == pytest.approx(-math.log(0.9 * 0.3 * 0.8 * 0.6) / 4)


def test_patient_metrics_by_hand(four_images):
    metrics = compute_metrics(four_images)
    # p is benign with a mean probability of 0.6, so all three patients are right.
    assert metrics["patient/accuracy"] == 1.0
    assert metrics["patient/nll"] == pytest.approx(-math.log(0.6 * 0.8 * 0.6) / 3)
    assert metrics["patient/recognition_rate"] == pytest.approx((0.5 + 1 + 1) / 3)
    # p's vote is a tie, which the higher mean probability decides.
    assert metrics["patient_majority_vote/accuracy"] == 1.0


def test_a_vote_has_the_macro_precision_of_its_decisions(make_table):
    """Votes: p benign (right), q malignant (right), r malignant (wrong)."""
    table = make_table(
        ["benign", "malignant", "benign"],
        [SURE_BENIGN, SURE_MALIGNANT, SURE_MALIGNANT],
        accessions=["p", "q", "r"],
    )
    metrics = compute_metrics(table)
    assert metrics["patient_majority_vote/precision_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert "patient_majority_vote/precision_benign" not in metrics, "by class only recall"


def test_three_patient_scores_are_three_different_numbers(make_table):
    table = make_table(
        ["malignant"] * 3 + ["benign"],
        [[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], SURE_BENIGN],
        accessions=["p", "p", "p", "q"],
    )
    metrics = compute_metrics(table)
    assert metrics["patient/accuracy"] == 1.0
    assert metrics["patient_majority_vote/accuracy"] == 0.5
    assert metrics["patient/recognition_rate"] == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("level", ["image", "patient"])
def test_metrics_agree_with_scikit_learn(full_tables, task, level):
    table = full_tables[task]
    sample = sample_of(table, level)
    ours = compute_metrics(table)
    y_true, y_pred = sample.y_true, sample.y_pred
    expected = {
        "accuracy": reference.accuracy_score(y_true, y_pred),
        "balanced_accuracy": reference.balanced_accuracy_score(y_true, y_pred),
        "mcc": reference.matthews_corrcoef(y_true, y_pred),
        "nll": reference.log_loss(y_true, sample.probabilities),
    }
    for metric, function in {
        "precision": reference.precision_score,
        "recall": reference.recall_score,
        "f1": reference.f1_score,
    }.items():
        expected[f"{metric}_macro"] = function(y_true, y_pred, average="macro")
        by_class = function(y_true, y_pred, average=None)
        expected |= dict(zip([f"{metric}_{n}" for n in sample.class_names], by_class, strict=True))
    for metric, function in {
        "auroc": reference.roc_auc_score,
        "average_precision": reference.average_precision_score,
    }.items():
        by_class = {
            name: function(y_true == index, sample.probabilities[:, index])
            for index, name in enumerate(sample.class_names)
        }
        expected |= {f"{metric}_{name}": value for name, value in by_class.items()}
        expected[metric] = (
            by_class["malignant"] if task == "binary" else np.mean(list(by_class.values()))
        )
    found = {name: ours[f"{level}/{name}"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)


def test_multiclass_auroc_is_scikit_learns_macro_one_vs_rest(full_tables):
    table = full_tables["multiclass"]
    sample = sample_of(table, "image")
    expected = reference.roc_auc_score(sample.y_true, sample.probabilities, multi_class="ovr")
    assert score(table, "auroc") == pytest.approx(expected, abs=1e-12)


def test_magnification_group_equals_the_metrics_of_its_images_alone(full_tables):
    table = full_tables["binary"]
    whole, part = compute_metrics(table), compute_metrics(table[table["magnification"] == 200])
    for level in ("image", "patient"):
        for name in HEADLINE_METRICS:
            assert whole[f"magnification_200/{level}/{name}"] == part[f"{level}/{name}"]


def test_magnification_groups_hold_headline_metrics_only(full_tables):
    names = compute_metrics(full_tables["binary"])
    of_40x = {name for name in names if name.startswith("magnification_40/image/")}
    assert of_40x == {f"magnification_40/image/{metric}" for metric in HEADLINE_METRICS}


def test_absent_class_has_no_metrics_and_a_reason(make_table):
    names = TYPES[:3]
    table = make_table(
        [TYPES[0], TYPES[1], TYPES[1]],
        [[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]],
        names=names,
    )
    metrics, reasons = compute_metrics(table), undefined_metrics(table)
    gone = {f"image/{m}_{TYPES[2]}" for m in ("precision", "recall", "f1", "auroc")}
    assert not gone & metrics.keys()
    assert {reasons[name] for name in gone} == {f"class '{TYPES[2]}' is absent from y_true"}
    assert metrics["image/balanced_accuracy"] == 0.75  # (1 + 1/2) / 2: the absent class is not 0
    assert metrics["image/auroc"] == 1.0


def test_class_never_predicted_has_no_precision_but_an_f1_of_zero(make_table):
    table = make_table(["benign", "malignant"], [SURE_MALIGNANT, SURE_MALIGNANT])
    metrics, reasons = compute_metrics(table), undefined_metrics(table)
    assert metrics["image/f1_benign"] == 0.0
    assert reasons["image/precision_benign"] == "class 'benign' is never predicted"
    told = "precision has no value for benign: never predicted"
    levels = [reasons[f"{level}/precision_macro"] for level in LEVELS]
    assert levels == [told] * len(LEVELS), "the same at all of them"
    assert "image/mcc" in reasons


def test_one_class_alone_leaves_only_what_needs_no_comparison(make_table):
    table = make_table(["malignant"] * 2, [SURE_MALIGNANT, SURE_BENIGN])
    metrics, reasons = compute_metrics(table), undefined_metrics(table)
    assert metrics["image/accuracy"] == metrics["image/recall_malignant"] == 0.5
    for name in ("balanced_accuracy", "f1_macro", "auroc", "average_precision"):
        assert reasons[f"image/{name}"] == "fewer than two classes are present"


def test_true_class_of_probability_zero_has_no_likelihood(make_table):
    table = make_table(["benign", "malignant"], [SURE_BENIGN, SURE_MALIGNANT])
    table.loc[0, "logit_benign"] = -5000.0
    assert "image/nll" not in compute_metrics(table)
    assert undefined_metrics(table)["image/nll"] == "a true class was given the probability 0"


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_defined_and_undefined_metrics_share_out_the_same_names(full_tables, task):
    whole = full_tables[task]
    part = whole[whole["type"].isin(["adenosis", "fibroadenoma"])]
    names = compute_metrics(whole).keys() | undefined_metrics(whole).keys()
    values, reasons = compute_metrics(part), undefined_metrics(part)
    assert values.keys() | reasons.keys() == names
    assert not values.keys() & reasons.keys()
    assert all(math.isfinite(value) for value in values.values())


def test_metrics_do_not_depend_on_the_order_of_images(full_tables):
    table = full_tables["multiclass"]
    shuffled = compute_metrics(table.sample(frac=1, random_state=1))
    assert shuffled == pytest.approx(compute_metrics(table), abs=1e-12)


def test_empty_table_is_refused(full_tables):
    with pytest.raises(DataError, match="nothing to evaluate"):
        compute_metrics(full_tables["binary"].iloc[:0])


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_score_is_the_metric_of_the_same_name(full_tables, task, objective):
    table = full_tables[task]
    assert score(table, objective) == pytest.approx(compute_metrics(table)[f"image/{objective}"])


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_epoch_score_of_all_rows_is_the_score(full_tables, task, objective):
    table = full_tables[task]
    found = epoch_score(table["y_true"].to_numpy(), logits_of(table), objective)
    assert found == pytest.approx(score(table, objective), abs=1e-12)


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
def test_score_of_one_class_is_an_error(make_table, objective):
    table = make_table(["malignant"], [SURE_MALIGNANT])
    with pytest.raises(DataError, match=f"{objective} cannot be computed.*received malignant"):
        score(table, objective)


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize(
    ("y_true", "logits"),
    [
        ([1, 1], [[0.0, 1.0], [1.0, 0.0]]),
        ([0, 1], [[np.nan, 1.0], [1.0, 0.0]]),
        ([], np.empty((0, 2))),
    ],
    ids=["one class", "not finite", "empty"],
)
def test_epoch_without_a_score_gives_none(y_true, logits, objective):
    assert epoch_score(y_true, logits, objective) is None


def test_epoch_score_runs_over_the_classes_of_the_fold():
    logits = np.log([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    assert epoch_score([0, 1, 1], logits, "balanced_accuracy") == 0.75
    assert epoch_score([0, 1, 1], logits, "auroc") == 1.0


def test_undefined_metrics_cause_no_warning(make_table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute_metrics(make_table(["malignant"], [SURE_BENIGN]))


def test_all_of_breakhis_is_measured_within_a_second(full_tables):
    start = time.process_time()
    compute_metrics(full_tables["multiclass"])
    # It takes about 0.1 s of processor time; the margin is for slow machines.
    assert time.process_time() - start < 1.0
