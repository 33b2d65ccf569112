"""The patient-swap test: exact by hand, equal to a slow loop, fair where nothing differs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from simulated_models import simulated_model, table_of_scores

from breakhis_search.comparison.alignment import align
from breakhis_search.comparison.permutation import (
    auroc_contributions,
    patient_swap_test,
    small_sample_factor,
    swap_tails,
)
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import score
from breakhis_search.evaluation.pairwise import pairwise_wins
from breakhis_search.evaluation.predictions import logits_of, tables_by_seed

THREE = ("adenosis", "fibroadenoma", "ductal_carcinoma")


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Replace the scores of each seed of a binary table by logits of their ranks."""
    parts = []
    for part in tables_by_seed(table):
        logits = logits_of(part).astype(float)
        rank = pd.Series(logits[:, 1] - logits[:, 0]).rank() / (len(part) + 1)
        parts.append(
            part.assign(logit_benign=0.0, logit_malignant=np.log(rank / (1 - rank)).to_numpy())
        )
    return pd.concat(parts, ignore_index=True)


def swap_rows(
    a: pd.DataFrame, b: pd.DataFrame, accessions: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exchange the rows of these accessions between two tables."""
    of_a, of_b = a["accession"].isin(accessions), b["accession"].isin(accessions)
    return pd.concat([a[~of_a], b[of_b]]), pd.concat([b[~of_b], a[of_a]])


def slow_exact_test(
    a: pd.DataFrame, b: pd.DataFrame, objective: str, factor: float = 1.0
) -> tuple[float, float]:
    """Physically swap every set of accessions and score both tables anew."""
    accessions = sorted(set(a["accession"]))
    differences = []
    for choice in product([False, True], repeat=len(accessions)):
        chosen = [name for name, taken in zip(accessions, choice, strict=True) if taken]
        mixed_a, mixed_b = swap_rows(a, b, chosen)
        differences.append(score(mixed_a, objective) - score(mixed_b, objective))
    observed, swapped = differences[0], factor * np.array(differences)
    return (
        float((swapped >= observed - 1e-9).mean()),
        float((np.abs(swapped) >= abs(observed) - 1e-9).mean()),
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_auroc_agrees_with_swapping_rows(seeds) -> None:
    a = simulated_model([3, 4], separation=1.5, seeds=seeds, images=3)
    b = simulated_model([3, 4], separation=0.5, seeds=seeds, images=3, model=1)
    test = patient_swap_test(a, b, "auroc")
    factor = np.sqrt(3 / 2)  # the scarcer class has three patients of as many images
    greater, two_sided = slow_exact_test(ranked(a), ranked(b), "auroc", factor)
    assert (test.p_greater, test.p_two_sided) == pytest.approx((greater, two_sided))
    assert test.exact


@pytest.mark.parametrize("names", [("benign", "malignant"), THREE])
def test_balanced_accuracy_agrees_with_swapping_rows(names) -> None:
    patients = [3] * len(names) if len(names) == 2 else [2, 2, 3]
    a = simulated_model(patients, separation=2.0, seeds=2, images=3, names=names)
    b = simulated_model(patients, separation=0.5, seeds=2, images=3, names=names, model=1)
    test = patient_swap_test(a, b, "balanced_accuracy")
    assert (test.p_greater, test.p_two_sided) == pytest.approx(
        slow_exact_test(a, b, "balanced_accuracy")
    )


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("names", [("benign", "malignant"), THREE])
@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (2, 3)])
def test_difference_is_that_of_the_mean_scores(objective, names, seeds) -> None:
    patients = [4] * len(names)
    a = simulated_model(patients, separation=1.5, seeds=seeds[0], names=names)
    b = simulated_model(patients, separation=0.5, seeds=seeds[1], names=names, model=1)
    test = patient_swap_test(a, b, objective, permutations=10)
    assert test.difference == pytest.approx(score(a, objective) - score(b, objective))


def test_contributions_are_those_of_the_four_matrices_of_wins() -> None:
    a, b = simulated_model([3, 5]), simulated_model([3, 5], model=1)
    aligned = align([a, b])
    positive, count = aligned.y_true == 1, len(aligned.accessions)
    ranks = {
        name: pd.Series(p[0, :, 1]).rank().to_numpy()
        for name, p in zip("AB", aligned.probabilities, strict=True)
    }
    wins = {
        x + y: pairwise_wins(
            positive, ranks[x], aligned.patient, count, negative_scores=ranks[y]
        ).wins
        for x in "AB"
        for y in "AB"
    }
    contributions = auroc_contributions(positive, ranks["A"], ranks["B"], aligned.patient, count)
    pairs = positive.sum() * (~positive).sum()
    for swapped in np.random.default_rng(0).integers(0, 2, (20, count)):
        kept = 1 - swapped
        mixed_a = kept @ wins["AA"] @ kept + kept @ wins["AB"] @ swapped
        mixed_a = mixed_a + swapped @ wins["BA"] @ kept + swapped @ wins["BB"] @ swapped
        mixed_b = swapped @ wins["AA"] @ swapped + swapped @ wins["AB"] @ kept
        mixed_b = mixed_b + kept @ wins["BA"] @ swapped + kept @ wins["BB"] @ kept
        expected = (mixed_a - mixed_b) / pairs
        assert (kept - swapped) @ contributions == pytest.approx(expected)


def test_auroc_of_a_case_by_hand() -> None:
    # One benign (p0) and two malignant patients. Ranks by A: 1 2 3, by B: 3 1 2. Swapped sets:
    # none 1 - 0, {p1} or {p2} 3/4 - 0, {p1, p2} 1/2 - 0, and their complements turned round. For
    # the only benign patient they are stretched by sqrt 2: 1.41, 1.06, 1.06 reach 1, 0.71 does not.
    y_true, accessions = [0, 1, 1], ["p0", "p1", "p2"]
    a = table_of_scores(y_true, accessions, [[1.0, 2.0, 3.0]])
    b = table_of_scores(y_true, accessions, [[3.0, 1.0, 2.0]])
    test = patient_swap_test(a, b, "auroc")
    assert test.difference == pytest.approx(1.0)
    assert (test.p_greater, test.p_two_sided) == (3 / 8, 6 / 8)
    assert (test.permutations, test.n_patients, test.exact) == (8, 3, True)


def test_sign_test_of_fishers_maize() -> None:
    # Darwin's 15 pairs, cross- minus self-fertilised, in eighths of an inch; R. A. Fisher, The
    # Design of Experiments (1935), section 21: 863 of the 32,768 sums are 314 or more.
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    heights = np.array(eighths, dtype=float)
    tails = swap_tails(heights, permutations=2**15, rng=np.random.default_rng(0))
    assert heights.sum() == 314
    assert (tails.p_greater, tails.p_two_sided) == (863 / 32768, 1726 / 32768)
    assert tails.exact


def test_random_sets_estimate_what_all_sets_say() -> None:
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    heights = np.array(eighths, dtype=float)
    tails = swap_tails(heights, permutations=20_000, rng=np.random.default_rng(0))
    assert not tails.exact
    assert tails.p_greater == pytest.approx(863 / 32768, abs=0.0034)  # three standard errors


def test_factor_of_unequal_patients_is_that_of_their_effective_number() -> None:
    # Benign: 3 patients of 4, 1 and 1 images, 36 / 18 = 2 effective ones; malignant: 4 of one.
    patient = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
    positive = np.arange(10) >= 6
    assert small_sample_factor(positive, patient, 7) == pytest.approx(np.sqrt(2))
    assert small_sample_factor(~positive, patient, 7) == pytest.approx(np.sqrt(2))
    even = np.arange(20)
    assert small_sample_factor(even < 5, even, 20) == pytest.approx(np.sqrt(5 / 4))


def test_factor_of_the_development_patients_of_breakhis() -> None:
    benign = [65, 236, 53, 256, 64, 65, 493, 383, 158, 138, 68, 129, 126]
    patient = np.repeat(np.arange(13 + 44), [*benign, *[90] * 44])
    positive = patient >= 13
    effective = sum(benign) ** 2 / sum(n**2 for n in benign)
    assert effective == pytest.approx(8.22, abs=0.01)
    factor = small_sample_factor(positive, patient, 57)
    assert factor == pytest.approx(np.sqrt(effective / (effective - 1)))


def test_models_of_unequal_patients_are_called_different_as_often_as_alpha_says() -> None:
    # Eight benign patients, two of whom hold most images: without the factor 7 to 8 % are called.
    rng = np.random.default_rng(1)
    images = np.array([16, 59, 13, 64, 16, 16, 123, 95, *[22] * 27])
    patient, positive = np.repeat(np.arange(35), images), np.repeat(np.arange(35) >= 8, images)
    factor = small_sample_factor(positive, patient, 35)
    called = np.zeros(2)
    for _ in range(1000):
        a, b = 1.8 * positive + rng.normal(0, 0.7, (2, 35))[:, patient]
        noise = rng.normal(0, 0.7, (2, len(patient)))
        v = auroc_contributions(positive, a + noise[0], b + noise[1], patient, 35)
        for column, stretch in enumerate((1.0, factor)):
            tails = swap_tails(v, permutations=199, rng=rng, swapped=stretch * v)
            called[column] += tails.p_greater <= 0.05
    assert called[1] / 1000 <= 0.05 + 0.02  # three standard errors
    assert called[1] < called[0]


def test_auroc_contributions_of_a_case_by_hand() -> None:
    # Among the positives of both models (ranks 2 3 1 2) B puts p0 above 3.5 and A above 0.5 of
    # them; among the negatives (1 3) A puts p1 above 1, B above 0.5; over 2 * 2 * 1 pairs.
    contributions = auroc_contributions(
        np.array([False, True, True]),
        np.array([1.0, 2.0, 3.0]),
        np.array([3.0, 1.0, 2.0]),
        np.arange(3),
        3,
    )
    assert contributions.tolist() == [0.75, 0.125, 0.125]


def test_balanced_accuracy_of_a_case_by_hand() -> None:
    # Two images each; right by A: 2 1 2 1, by B: 1 2 0 1. In eighths A leads by 1 - 1 + 2 + 0.
    # Of the eight signs of (1, 1, 2) three sums reach 2 and six reach it either way.
    y_true = [0, 0, 0, 0, 1, 1, 1, 1]
    accessions = [f"p{i // 2}" for i in range(8)]
    a = table_of_scores(y_true, accessions, [[-1, -1, -1, 1, 1, 1, 1, -1]])
    b = table_of_scores(y_true, accessions, [[-1, 1, -1, -1, -1, -1, 1, -1]])
    test = patient_swap_test(a, b, "balanced_accuracy")
    assert test.difference == pytest.approx(0.25)
    assert (test.p_greater, test.p_two_sided) == (3 / 8, 6 / 8)


def test_identical_tables_give_p_one() -> None:
    table = simulated_model([4, 12], seeds=2)
    for objective in ("auroc", "balanced_accuracy"):
        test = patient_swap_test(table, table, objective, permutations=200)
        assert (test.difference, test.p_greater, test.p_two_sided) == (0.0, 1.0, 1.0)


def test_exchanging_the_models_turns_the_difference_round() -> None:
    a, b = simulated_model([3, 6], separation=2.0), simulated_model([3, 6], model=1)
    forward, backward = patient_swap_test(a, b, "auroc"), patient_swap_test(b, a, "auroc")
    assert backward.difference == pytest.approx(-forward.difference)
    assert backward.p_two_sided == forward.p_two_sided
    assert forward.p_greater + backward.p_greater >= 1  # the real set counts on both sides


def test_scale_of_the_scores_does_not_matter() -> None:
    a, b = simulated_model([4, 8], separation=1.5), simulated_model([4, 8], model=1)
    stretched = b.assign(
        logit_benign=b["logit_benign"] / 8, logit_malignant=b["logit_malignant"] / 8
    )
    assert patient_swap_test(a, stretched, "auroc") == patient_swap_test(a, b, "auroc")


def test_order_of_the_rows_does_not_matter() -> None:
    a, b = simulated_model([4, 8], seeds=2), simulated_model([4, 8], seeds=2, model=1)
    shuffled = b.sample(frac=1, random_state=0)
    assert patient_swap_test(a, shuffled, "auroc") == patient_swap_test(a, b, "auroc")


def test_equal_models_have_uniform_p() -> None:
    rng = np.random.default_rng(0)
    p_values = np.array(
        [swap_tails(rng.normal(0, 1, 15), permutations=199, rng=rng).p_greater for _ in range(2000)]
    )
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=0.03)


def test_equal_models_are_rarely_called_different() -> None:
    p_values = np.array(
        [
            patient_swap_test(
                simulated_model([5, 7], model=2 * study),
                simulated_model([5, 7], model=2 * study + 1),
                "auroc",
                permutations=99,
                seed=study,
            ).p_two_sided
            for study in range(100)
        ]
    )
    assert np.mean(p_values <= 0.1) <= 0.19  # 0.1 plus three standard errors
    assert 0.4 < p_values.mean() < 0.6


def test_a_clearly_better_model_is_found() -> None:
    a = simulated_model([10, 20], separation=4.0)
    b = simulated_model([10, 20], separation=0.0, model=1)
    test = patient_swap_test(a, b, "auroc", permutations=999)
    assert test.p_greater == 1 / 1000
    assert not test.exact


def test_all_sets_of_a_few_patients_are_tried_once() -> None:
    tails = swap_tails(np.ones(3), permutations=8, rng=np.random.default_rng(0))
    assert (tails.p_greater, tails.p_two_sided, tails.permutations) == (1 / 8, 2 / 8, 8)
    sampled = swap_tails(np.ones(3), permutations=7, rng=np.random.default_rng(0))
    assert not sampled.exact


def test_other_images_are_refused() -> None:
    a = simulated_model([3, 4])
    with pytest.raises(ComparisonError, match="different images.*1 missing.*image-0000.png"):
        patient_swap_test(a, a[a["image"] != "image-0000.png"], "auroc")


def test_seeds_of_different_images_are_refused() -> None:
    a = simulated_model([3, 4], seeds=2)
    with pytest.raises(ComparisonError, match="different images"):
        patient_swap_test(a, a.iloc[:-1], "auroc")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("y_true", 1, "true class.*expected 0"), ("accession", "14-99", "accession.*14-99")],
)
def test_contradicting_tables_are_refused(column, value, message) -> None:
    a = simulated_model([3, 4])
    b = a.copy()
    b.loc[0, column] = value
    with pytest.raises(ComparisonError, match=message):
        patient_swap_test(a, b, "auroc")


def test_other_classes_are_refused() -> None:
    with pytest.raises(ComparisonError, match="different classes"):
        patient_swap_test(simulated_model([2, 2, 2], names=THREE), simulated_model([3, 3]), "auroc")


def test_one_class_alone_is_refused() -> None:
    a = simulated_model([3, 4])
    benign = a[a["y_true"] == 0]
    with pytest.raises(ComparisonError, match="one class.*'benign'"):
        patient_swap_test(benign, benign, "auroc")
