"""AUROC by pairs of patients agrees with scikit-learn, weighted or not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from breakhis_search.evaluation.pairwise import pairwise_wins


@pytest.fixture
def ranking() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 9, 200)
    return rng.random(200) < 0.4, rng.integers(0, 30, 200) / 30.0, patient


def test_auroc_of_ones_is_that_of_scikit_learn(ranking) -> None:
    labels, scores, patient = ranking
    wins = pairwise_wins(labels, scores, patient, 9)
    assert wins.auroc(np.ones((1, 9)))[0] == pytest.approx(roc_auc_score(labels, scores))


def test_auroc_of_weights_is_that_of_repeated_patients(ranking) -> None:
    labels, scores, patient = ranking
    weights = np.random.default_rng(1).integers(0, 4, (5, 9)).astype(float)
    wins = pairwise_wins(labels, scores, patient, 9)
    for value, weight in zip(wins.auroc(weights), weights, strict=True):
        expected = roc_auc_score(labels, scores, sample_weight=weight[patient])
        assert value == pytest.approx(expected)


def test_auroc_is_nan_without_negatives(ranking) -> None:
    labels, scores, patient = ranking
    negatives_only = pairwise_wins(np.zeros_like(labels), scores, patient, 9)
    assert np.isnan(negatives_only.auroc(np.ones((1, 9)))[0])


def test_wins_of_two_models_rank_positives_of_one_against_negatives_of_the_other(ranking) -> None:
    labels, scores, patient = ranking
    rivals = np.random.default_rng(2).random(200)
    wins = pairwise_wins(labels, scores, patient, 9, negative_scores=rivals)
    mixed = np.where(labels, scores, rivals)
    assert wins.auroc(np.ones((1, 9)))[0] == pytest.approx(roc_auc_score(labels, mixed))
