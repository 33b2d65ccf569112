"""The best of many is partly luck, and the correction takes the luck out."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_models import simulated_model

from breakhis_search.comparison.optimism import Optimism, best_of_n_optimism
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import score

TRUTH = 0.5  # balanced accuracy and AUROC of models that know nothing


@pytest.mark.parametrize("objective", ["auroc", "balanced_accuracy"])
def test_of_equal_candidates_the_correction_is_right_and_the_best_is_not(objective) -> None:
    studies = [
        best_of_n_optimism(
            [
                simulated_model([6, 10], separation=0.0, images=2, model=100 * study + n)
                for n in range(8)
            ],
            objective,
            resamples=60,
            seed=study,
        )
        for study in range(30)
    ]
    corrected = np.array([study.corrected for study in studies])
    error = corrected.std() / np.sqrt(len(studies))
    assert abs(corrected.mean() - TRUTH) < 3 * error
    assert min(study.raw_best for study in studies) > TRUTH
    assert np.mean([study.optimism for study in studies]) > 5 * error


def test_clear_winner_carries_little_optimism() -> None:
    tables = [simulated_model([8, 8], separation=4.0)]
    tables += [simulated_model([8, 8], separation=-2.0, model=n) for n in range(1, 6)]
    optimism = best_of_n_optimism(tables, "auroc", resamples=300)
    assert optimism.raw_best == pytest.approx(score(tables[0], "auroc"))
    assert abs(optimism.optimism) < 0.01


def test_optimism_is_best_minus_corrected() -> None:
    tables = [simulated_model([5, 6], seeds=2, model=n) for n in range(3)]
    optimism = best_of_n_optimism(tables, "auroc", resamples=100)
    assert optimism.optimism == pytest.approx(optimism.raw_best - optimism.corrected)
    assert (optimism.candidates, optimism.resamples, optimism.reason) == (3, 100, None)
    assert "the best of 3" in str(optimism)


def test_correction_repeats_with_its_seed() -> None:
    tables = [simulated_model([5, 6], model=n) for n in range(3)]
    once, again, other = (best_of_n_optimism(tables, "auroc", seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once.corrected != other.corrected


def test_only_candidate_was_not_chosen() -> None:
    table = simulated_model([1, 3])
    optimism = best_of_n_optimism([table], "auroc")
    assert (optimism.corrected, optimism.optimism) == (optimism.raw_best, 0.0)
    assert "nothing was chosen" in str(optimism)


def test_one_patient_of_a_class_gives_no_correction() -> None:
    tables = [simulated_model([1, 5], model=n) for n in range(2)]
    optimism = best_of_n_optimism(tables, "auroc")
    assert (optimism.corrected, optimism.optimism, optimism.resamples) == (None, None, 0)
    assert optimism.reason == "too few patients: 1 benign; 2 of each class are needed"


def test_two_patients_of_a_class_are_each_chosen_by_and_looked_at() -> None:
    names = ("adenosis", "fibroadenoma", "ductal_carcinoma")
    tables = [simulated_model([2, 3, 4], model=n, names=names) for n in range(3)]
    optimism = best_of_n_optimism(tables, "balanced_accuracy", resamples=50)
    assert 0 <= optimism.corrected <= 1
    assert optimism.resamples == 50


def test_patients_who_can_never_be_left_out_give_no_correction() -> None:
    names = ("adenosis", "fibroadenoma", "ductal_carcinoma")
    tables = [simulated_model([2, 2, 4], model=n, names=names) for n in range(2)]
    for table in tables:  # both adenosis patients are both fibroadenoma patients
        table["accession"] = table["accession"].replace({"14-0": "14-2", "14-1": "14-3"})
    optimism = best_of_n_optimism(tables, "auroc", resamples=20)
    assert optimism.corrected is not None  # one in, one out serves both classes
    for table in tables:  # the only further adenosis patient is alone
        table["accession"] = table["accession"].replace({"14-2": "14-3"})
    assert best_of_n_optimism(tables, "auroc", resamples=20).corrected is None


def test_no_candidate_is_refused() -> None:
    with pytest.raises(ComparisonError, match="no candidate"):
        best_of_n_optimism([], "auroc")


def test_negative_luck_is_not_promised_to_anybody() -> None:
    says = str(Optimism(0.758, 0.769, -0.011, 3, 100, None))
    assert says == "0.758, the best of 3 (no luck of the choice is to be seen on these patients)"
