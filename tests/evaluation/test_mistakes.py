"""Mistakes of images, pairs of classes and patients, checked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import DataError
from breakhis_search.evaluation.mistakes import (
    ConfusedPair,
    HardPatient,
    confused_pairs,
    hard_patients,
    mean_over_seeds,
    mistakes_of_fold,
    most_confident_mistakes,
)

TYPES = class_names("multiclass")


def binary_table(make_table, malignant, *, true=None, accessions=None):
    """Table of images with these probabilities of malignant; all benign unless told."""
    pairs = [[1 - p, p] for p in malignant]
    return make_table(true or ["benign"] * len(pairs), pairs, accessions=accessions)


def with_seeds(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([t.assign(seed=seed) for seed, t in enumerate(tables)], ignore_index=True)


def numbers_of(mistakes) -> list[int]:
    return [int(m.image.removeprefix("image-").removesuffix(".png")) for m in mistakes]


def test_mistakes_are_ranked_by_the_probability_of_the_wrong_class(make_table):
    table = binary_table(make_table, [0.6, 0.95, 0.4, 0.1], true=["benign"] * 3 + ["malignant"])
    mistakes = most_confident_mistakes(table)
    assert numbers_of(mistakes) == [1, 3, 0]
    assert [m.predicted_class for m in mistakes] == ["malignant", "benign", "malignant"]
    assert [m.predicted_index for m in mistakes] == [1, 0, 1]
    np.testing.assert_allclose([m.probability for m in mistakes], [0.95, 0.9, 0.6], rtol=1e-5)
    np.testing.assert_allclose([m.true_probability for m in mistakes], [0.05, 0.1, 0.4], rtol=1e-5)


def test_mistake_states_the_facts_of_its_image(make_table):
    table = make_table(
        ["malignant"], [[0.7, 0.3]], accessions=["14-5"], magnifications=[400]
    ).assign(fold=2)
    (mistake,) = most_confident_mistakes(table)
    assert (mistake.image, mistake.accession, mistake.magnification) == (
        "image-000.png",
        "14-5",
        400,
    )
    assert (mistake.type, mistake.fold, mistake.true_class) == ("ductal_carcinoma", 2, "malignant")


def test_patient_fills_the_gallery_no_further_than_allowed(make_table):
    table = binary_table(
        make_table, [0.99, 0.98, 0.97, 0.6, 0.55], accessions=["a", "a", "a", "b", "b"]
    )
    assert numbers_of(most_confident_mistakes(table)) == [0, 1, 3, 4]
    assert numbers_of(most_confident_mistakes(table, per_patient=1)) == [0, 3]
    assert numbers_of(most_confident_mistakes(table, count=3)) == [0, 1, 3]


def test_gallery_is_empty_where_everything_is_right(make_table):
    assert most_confident_mistakes(binary_table(make_table, [0.1, 0.4])) == []


def test_seeds_are_averaged_for_each_image(make_table):
    """Image 0 is wrong for one seed only, image 1 on average, image 2 for both."""
    table = with_seeds(
        binary_table(make_table, [0.7, 0.9, 0.6]), binary_table(make_table, [0.1, 0.3, 0.8])
    )
    images = mean_over_seeds(table)
    np.testing.assert_allclose(images["probability_malignant"], [0.4, 0.6, 0.7], rtol=1e-5)
    assert numbers_of(most_confident_mistakes(table)) == [2, 1]


def test_mistakes_of_folds_hold_those_of_the_whole(full_tables):
    """So that the picture of every mistake can be explained by the model at hand."""
    for table in full_tables.values():
        of_folds = {m for _, rows in table.groupby("fold") for m in mistakes_of_fold(rows)}
        assert set(most_confident_mistakes(table)) <= of_folds


def test_mistakes_of_several_models_are_refused_as_those_of_one(make_table):
    table = binary_table(make_table, [0.7])
    with pytest.raises(DataError, match="received 2 combinations"):
        mistakes_of_fold(with_seeds(table, table))


def test_confused_pairs_count_images_and_patients(make_table):
    true = ["fibroadenoma"] * 5 + ["adenosis"] * 2
    to = {name: np.eye(8)[TYPES.index(name)] * 0.9 + 0.0125 for name in TYPES}
    given = ["phyllodes_tumor", "phyllodes_tumor", "adenosis", "fibroadenoma", "fibroadenoma"]
    given += ["adenosis", "fibroadenoma"]
    table = make_table(
        true,
        [to[name] for name in given],
        names=TYPES,
        accessions=["1", "2", "2", "3", "4", "5", "5"],
    )
    assert confused_pairs(table) == [
        ConfusedPair("adenosis", "fibroadenoma", 1, 2, 1, 1),
        ConfusedPair("fibroadenoma", "phyllodes_tumor", 2, 5, 2, 4),
        ConfusedPair("fibroadenoma", "adenosis", 1, 5, 1, 4),
    ]


def test_confused_pairs_of_the_binary_task_start_from_the_type(make_table):
    table = binary_table(make_table, [0.2, 0.9], true=["malignant", "malignant"])
    assert confused_pairs(table) == [ConfusedPair("ductal_carcinoma", "benign", 1, 2, 1, 2)]


def test_several_seeds_count_an_image_once(make_table):
    table = binary_table(make_table, [0.9, 0.2])
    assert confused_pairs(with_seeds(table, table, table)) == confused_pairs(table)


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (1, "1 of 1 patient (too few patients to speak of the type)"),
        (4, "1 of 4 patients (too few patients to speak of the type)"),
        (5, "1 of 5 patients"),
    ],
)
def test_few_patients_are_said_to_be_few(patients, words):
    pair = ConfusedPair("adenosis", "lobular_carcinoma", 1, 1, 1, patients)
    assert str(pair) == f"adenosis is taken for lobular carcinoma: 1 of 1 image, from {words}"


def test_hard_patient_is_wrong_for_every_trial(make_table):
    accessions = ["a", "a", "b", "b", "c"]
    one = binary_table(make_table, [0.9, 0.6, 0.9, 0.2, 0.9], accessions=accessions)
    other = binary_table(make_table, [0.2, 0.9, 0.2, 0.2, 0.6], accessions=accessions)
    hard = hard_patients([one, other])
    assert [(p.accession, p.images) for p in hard.patients] == [("c", 1), ("a", 2)]
    assert (hard.of_patients, hard.trials) == (3, 2)
    c, a = hard.patients
    assert c.true_probability == pytest.approx(0.25)  # (0.1 + 0.4) / 2
    assert a.true_probability == pytest.approx(0.35)  # (0.25 + 0.45) / 2
    assert a.types == ("adenosis",)
    assert a.predicted == (("malignant", 2),)


def test_hard_patient_of_several_wrong_classes_names_them():
    votes = (("ductal_carcinoma", 2), ("lobular_carcinoma", 1))
    patient = HardPatient("14-1", ("adenosis",), "adenosis", 1_200, votes, 0.05)
    assert patient.in_words() == (
        "14-1 (adenosis, 1,200 images) is taken for ductal carcinoma by 2, lobular carcinoma by 1 "
        "of 3 trials; mean p(adenosis) 0.05"
    )


def test_patient_is_judged_by_the_mean_over_seeds(make_table):
    right, wrong = binary_table(make_table, [0.1]), binary_table(make_table, [0.7])
    assert hard_patients([with_seeds(right, wrong)]).patients == ()
    assert len(hard_patients([with_seeds(right, wrong, wrong, wrong)]).patients) == 1


def test_hard_patients_say_what_agreement_is_worth(make_table):
    table = binary_table(make_table, [0.9, 0.1])
    assert "these are its own mistakes" in hard_patients([table]).in_words()
    words = hard_patients([table, table]).in_words("seed")
    assert words.startswith("1 of 2 patients is wrong in every one of 2 seeds.")
    assert "no independent evidence" in words


def test_trials_of_other_images_are_refused(make_table):
    one, other = binary_table(make_table, [0.9, 0.1]), binary_table(make_table, [0.9])
    with pytest.raises(DataError, match="expected 2 images of the classes"):
        hard_patients([one, other])
    with pytest.raises(DataError, match="no trial to compare"):
        hard_patients([])
