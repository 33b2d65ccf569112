"""The four levels and Spanhol's rate, by hand where they part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation.samples import (
    LEVELS,
    confusion_matrix,
    decisions_of,
    recognition_shares,
    sample_of,
    samples_by_seed,
)


@pytest.fixture
def parted(make_table) -> pd.DataFrame:
    """One malignant patient with images at 0.45, 0.45 and 0.99, one benign at 0.2 and 0.2."""
    p = np.array([0.45, 0.45, 0.99, 0.2, 0.2])
    return make_table(
        ["malignant"] * 3 + ["benign"] * 2,
        np.column_stack([1 - p, p]),
        accessions=["14-1"] * 3 + ["14-0"] * 2,
    )


def test_mean_probability_and_majority_vote_part(parted) -> None:
    # Mean 0.63 says malignant; two of three images say benign.
    assert sample_of(parted, "patient").probabilities[1, 1] == pytest.approx(0.63)
    assert decisions_of(parted, "patient").y_pred.tolist() == [0, 1]
    assert decisions_of(parted, "patient_majority_vote").y_pred.tolist() == [0, 0]


def test_mean_logit_is_the_geometric_mean_of_the_odds(parted) -> None:
    # Odds 9/11, 9/11 and 99: their geometric mean is 66.27^(1/3) = 4.047, a share of 0.802.
    odds = (9 / 11 * 9 / 11 * 99) ** (1 / 3)
    found = sample_of(parted, "patient_mean_logit").probabilities[1, 1]
    assert found == pytest.approx(odds / (1 + odds), abs=1e-6)


def test_recognition_rate_is_a_mean_of_shares_of_images(parted) -> None:
    shares, accession = recognition_shares(parted)
    assert accession.tolist() == ["14-0", "14-1"]
    assert shares == pytest.approx([1.0, 1 / 3])


def test_tied_vote_goes_to_the_higher_mean_probability(make_table) -> None:
    table = make_table(["benign"] * 2, [[0.9, 0.1], [0.45, 0.55]], accessions=["14-0", "14-0"])
    assert decisions_of(table, "patient_majority_vote").y_pred.tolist() == [0]


def test_patient_of_two_classes_is_two_patients(make_table) -> None:
    table = make_table(
        ["benign", "malignant"], [[0.9, 0.1], [0.2, 0.8]], accessions=["14-0", "14-0"]
    )
    for level in ("patient", "patient_mean_logit", "patient_majority_vote"):
        assert decisions_of(table, level).y_true.tolist() == [0, 1]
    assert decisions_of(table, "patient").accession.tolist() == ["14-0", "14-0"]


def test_confusion_matrix_agrees_with_scikit_learn(full_tables) -> None:
    from sklearn.metrics import confusion_matrix as reference

    decisions = decisions_of(full_tables["multiclass"], "image")
    expected = reference(decisions.y_true, decisions.y_pred)
    assert confusion_matrix(decisions).tolist() == expected.tolist()


def test_order_of_the_rows_does_not_matter_to_patients(full_tables) -> None:
    table = full_tables["binary"]
    shuffled = table.sample(frac=1, random_state=0)
    for level in LEVELS[1:]:
        a, b = decisions_of(table, level), decisions_of(shuffled, level)
        assert (a.accession == b.accession).all()
        assert (a.y_pred == b.y_pred).all()


def test_several_seeds_are_scored_one_by_one(parted) -> None:
    twice = pd.concat([parted, parted.assign(seed=1)], ignore_index=True)
    assert len(samples_by_seed(twice, "patient")) == 2
    with pytest.raises(DataError, match="several seeds"):
        sample_of(twice, "patient")
    with pytest.raises(DataError, match="several seeds"):
        decisions_of(twice, "patient_majority_vote")


def test_empty_table_is_refused(parted) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        decisions_of(parted.iloc[:0], "image")
