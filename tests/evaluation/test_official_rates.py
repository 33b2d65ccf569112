"""Recognition rates of the official tests, by hand and against the patient rates elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.errors import DataError
from breakhis_search.evaluation.official_rates import official_rates

SLIDES = {"14-1A": "fibroadenoma", "14-1B": "fibroadenoma", "14-2": "ductal_carcinoma"}


def make_part(fold: int, right: dict[str, list[bool]], *, seed: int = 0, magnification: int = 40):
    """Predictions of one fold: per slide, which of its images are right."""
    rows = [
        (f"{slide}-{magnification}-{i}.png", slide, slide.rstrip("AB"), SLIDES[slide], hit)
        for slide, hits in right.items()
        for i, hit in enumerate(hits)
    ]
    table = pd.DataFrame(rows, columns=["image", "slide", "accession", "type", "right"])
    table["magnification"], table["fold"], table["seed"] = magnification, fold, seed
    table["y_true"] = (table["type"] == "ductal_carcinoma").astype("int64")
    says = np.where(table.pop("right"), table["y_true"], 1 - table["y_true"])
    table["logit_benign"] = (says == 0).astype("float32")
    table["logit_malignant"] = (says == 1).astype("float32")
    return table


ONE = {"14-1A": [True, True, True, False], "14-1B": [False], "14-2": [True, False]}
TWO = {"14-2": [True, True, False]}


def value(rates: pd.DataFrame, rate: str, column: str, magnification: int = 40) -> float:
    [row] = rates[(rates["rate"] == rate) & (rates["magnification"] == magnification)].index
    return float(rates.loc[row, column])


def test_rates_by_hand():
    rates = official_rates(pd.concat([make_part(0, ONE), make_part(1, TWO)]))
    assert value(rates, "image", "fold_1") == pytest.approx(4 / 7)
    # Slides are the patients of the literature: A and B are two of them, though one accession.
    assert value(rates, "patient", "fold_1") == pytest.approx((3 / 4 + 0 + 1 / 2) / 3)
    assert value(rates, "image", "fold_2") == value(rates, "patient", "fold_2")
    assert value(rates, "image", "mean") == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert value(rates, "image", "sd") == pytest.approx((2 / 3 - 4 / 7) / np.sqrt(2))


def test_an_image_may_be_tested_in_several_folds():
    rates = official_rates(pd.concat([make_part(fold, ONE) for fold in range(5)]))
    assert [c for c in rates.columns if c.startswith("fold_")] == [f"fold_{n}" for n in range(1, 6)]
    assert value(rates, "image", "mean") == pytest.approx(4 / 7)
    assert value(rates, "image", "sd") == pytest.approx(0.0)


def test_seeds_are_averaged_within_their_fold():
    wrong = {slide: [False] * len(hits) for slide, hits in TWO.items()}
    table = pd.concat([make_part(0, TWO), make_part(0, wrong, seed=1), make_part(1, TWO)])
    rates = official_rates(table)
    assert value(rates, "image", "fold_1") == pytest.approx(1 / 3)
    assert value(rates, "image", "mean") == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_magnifications_are_rows_of_their_own():
    table = pd.concat([make_part(0, ONE), make_part(0, TWO, magnification=400)])
    rates = official_rates(table)
    assert rates["magnification"].tolist() == [40, 40, 400, 400]
    assert rates["rate"].tolist() == ["image", "patient"] * 2
    assert value(rates, "image", "mean", 400) == pytest.approx(2 / 3)


def test_fold_without_images_at_a_magnification_is_left_open():
    table = pd.concat([make_part(0, ONE), make_part(1, TWO), make_part(0, TWO, magnification=400)])
    rates = official_rates(table)
    assert np.isnan(value(rates, "image", "fold_2", 400))
    assert value(rates, "image", "mean", 400) == pytest.approx(2 / 3)
    assert np.isnan(value(rates, "image", "sd", 400))


def test_image_tested_twice_in_a_fold_is_an_error():
    with pytest.raises(DataError, match="an image was scored twice"):
        official_rates(pd.concat([make_part(0, ONE), make_part(0, ONE)]))


def test_nothing_tested_is_an_error():
    with pytest.raises(DataError, match="no predictions of official tests"):
        official_rates(make_part(0, ONE).iloc[:0])
