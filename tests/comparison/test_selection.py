"""The smallest finalist among those tied with the best is selected, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_models import simulated_model

from breakhis_search.comparison.difference import difference_interval
from breakhis_search.comparison.permutation import patient_swap_test
from breakhis_search.comparison.selection import (
    COLUMNS,
    Finalist,
    adjust_by_holm,
    select,
)
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import score


@pytest.fixture
def strong() -> pd.DataFrame:
    return simulated_model([10, 14], separation=1.5, seeds=2)


@pytest.fixture
def weak() -> pd.DataFrame:
    return simulated_model([10, 14], separation=-1.0, seeds=2, model=1)


def a_little_worse(table: pd.DataFrame) -> pd.DataFrame:
    """Lower the scores of one malignant patient."""
    spoilt = table.copy()
    spoilt.loc[spoilt["accession"] == "14-15", "logit_malignant"] -= 1.0
    return spoilt


def consistently_worse(table: pd.DataFrame) -> pd.DataFrame:
    """Spoil every malignant image by a hair: a small gap in the same direction everywhere."""
    spoilt = table.copy()
    spoilt.loc[spoilt["y_true"] == 1, "logit_malignant"] -= 0.05
    return spoilt


def quickly(finalists, objective="auroc", **options):
    return select(finalists, objective, **{"permutations": 999, "resamples": 100} | options)


def test_smallest_of_the_tied_is_selected(strong) -> None:
    finalists = [
        Finalist(7, "densenet121", strong, 7_000_000),
        Finalist(3, "mobilenet", a_little_worse(strong), 3_228_864),
    ]
    selection = quickly(finalists)
    assert (selection.best, selection.selected, selection.tied) == (7, 3, (7, 3))
    assert selection.explanation.startswith(
        "trial 3 (mobilenet, 3.2 M parameters) is selected: it is tied with the best,"
        " trial 7 (densenet121, 7.0 M parameters), and has the fewest parameters of the 2"
    )


def test_gap_beyond_the_margin_is_no_tie_however_uncertain(strong) -> None:
    near = a_little_worse(strong)
    gap = score(strong, "auroc") - score(near, "auroc")
    finalists = [Finalist(1, "large", strong, 9_000), Finalist(2, "small", near, 10)]
    assert quickly(finalists, margin=gap / 2).selected == 1
    assert quickly(finalists, margin=gap).selected == 2
    explanation = quickly(finalists, margin=gap / 2).explanation
    assert "Not tied: trial 2" in explanation
    assert "more than the margin" in explanation


def test_gap_within_the_margin_is_no_tie_when_significant(strong) -> None:
    finalists = [
        Finalist(1, "large", strong, 9_000),
        Finalist(2, "small", consistently_worse(strong), 10),
    ]
    selection = quickly(finalists)
    row = selection.table.iloc[1]
    assert -0.01 <= row["difference"] < 0
    assert row["p_holm"] <= 0.05
    assert selection.selected == 1
    assert "too consistent among patients to be chance" in selection.explanation


def test_equal_parameters_fall_to_the_earlier_trial(strong) -> None:
    finalists = [Finalist(8, "cnn", strong, 10), Finalist(5, "cnn", a_little_worse(strong), 10)]
    assert quickly(finalists).selected == 5


def test_equal_scores_put_the_smaller_one_first(strong) -> None:
    finalists = [Finalist(1, "large", strong, 20), Finalist(2, "small", strong, 10)]
    selection = quickly(finalists)
    assert (selection.best, selection.selected) == (2, 2)
    assert "highest score" in selection.explanation
    assert "fewest parameters of the 2 tied with the best" in selection.explanation


def test_only_finalist_is_selected_and_that_is_said(strong) -> None:
    selection = quickly([Finalist(4, "small_cnn", strong, 19_400)])
    assert (selection.selected, selection.tied) == (4, (4,))
    assert selection.explanation.startswith(
        "trial 4 (small_cnn, 19 k parameters) is selected: it is the only finalist (AUROC 0."
    )
    assert selection.table["p"].isna().all()


def test_best_without_a_tie_is_selected_whatever_its_size(strong, weak) -> None:
    finalists = [Finalist(1, "tiny", weak, 10), Finalist(2, "huge", strong, 10**9)]
    selection = quickly(finalists)
    assert (selection.selected, selection.tied) == (2, (2,))
    assert "no other finalist is tied with it" in selection.explanation


def test_table_holds_what_the_single_comparisons_say(strong, weak) -> None:
    near = a_little_worse(strong)
    finalists = [
        Finalist(1, "weak", weak, 5),
        Finalist(2, "strong", strong, 20),
        Finalist(3, "near", near, 10),
    ]
    table = quickly(finalists).table
    assert list(table.columns) == list(COLUMNS)
    assert table["trial"].tolist() == [2, 3, 1]
    assert table["score"].tolist() == [score(t, "auroc") for t in (strong, near, weak)]
    assert table["tied"].tolist() == [True, True, False]
    assert table["selected"].tolist() == [False, True, False]
    p = [patient_swap_test(strong, t, "auroc", permutations=999).p_greater for t in (near, weak)]
    assert table["p"].tolist()[1:] == p
    assert table["p_holm"].iloc[2] == pytest.approx(min(1.0, 2 * min(p)))
    interval = difference_interval(weak, strong, "auroc", resamples=100)
    assert table[["difference", "low", "high"]].iloc[2].tolist() == [
        interval.difference,
        interval.low,
        interval.high,
    ]


def test_too_few_patients_leave_the_interval_out() -> None:
    finalists = [Finalist(n, "cnn", simulated_model([3, 9], model=n), 10) for n in range(2)]
    assert quickly(finalists).table["low"].isna().all()


def test_multiclass_is_selected_by_balanced_accuracy() -> None:
    names = ("adenosis", "fibroadenoma", "ductal_carcinoma")
    good = simulated_model([5, 5, 5], separation=4.0, names=names)
    poor = simulated_model([5, 5, 5], separation=0.0, names=names, model=1)
    finalists = [Finalist(0, "poor", poor, 1), Finalist(1, "good", good, 2)]
    assert quickly(finalists, "balanced_accuracy").selected == 1


def test_holm_of_the_textbook_case() -> None:
    # Sorted p 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never decreasing.
    adjusted = adjust_by_holm(np.array([0.04, 0.01, np.nan, 0.03, 0.02]))
    assert adjusted[[0, 1, 3, 4]] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert np.isnan(adjusted[2])


def test_no_finalist_is_refused() -> None:
    with pytest.raises(ComparisonError, match="no finalist"):
        select([], "auroc")


def test_repeated_trial_numbers_are_refused(strong) -> None:
    with pytest.raises(ComparisonError, match="trial 3 2 times"):
        quickly([Finalist(3, "a", strong, 1), Finalist(3, "b", strong, 2)])
