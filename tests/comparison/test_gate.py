"""The rules of the gate, on predictions and metrics made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.comparison.gate import (
    GateRules,
    judge_floors,
    judge_sealed,
    judge_superiority,
)
from breakhis_search.data.taxonomy import LABELS
from breakhis_search.evaluation.predictions import build_predictions

RULES = GateRules("auroc", 0.05, 0.05, {"image/auroc": 0.7}, {"image/sensitivity": 0.8})
TYPES = ("adenosis", "ductal_carcinoma")


def table_of(separation: float, *, seed: int = 0, patients: int = 24) -> pd.DataFrame:
    """Ten images of every patient, whose malignant logit is shifted by ``separation``."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(patients) % 2, 10)
    accession = np.repeat([f"14-{p}" for p in range(patients)], 10)
    rows = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(len(y))],
            "slide": accession,
            "accession": accession,
            "magnification": 100,
            "type": [TYPES[k] for k in y],
        }
    )
    logit = separation * (y - 0.5) + rng.normal(size=len(y))
    logits = np.stack([-logit / 2, logit / 2], axis=1)
    return build_predictions(rows, fold=0, y_true=y, logits=logits, class_names=LABELS)


def test_rules_survive_a_tag() -> None:
    assert GateRules.from_json(RULES.to_json()) == RULES


def test_better_challenger_passes() -> None:
    decision = judge_superiority(table_of(3.0), table_of(0.5, seed=1), RULES)
    assert decision.passed
    assert "better than the champion" in decision.reasons[0]
    assert "24 patients" in decision.reasons[0]


def test_equal_challenger_is_refused_with_its_p_value() -> None:
    decision = judge_superiority(table_of(2.0), table_of(2.0), RULES)
    assert not decision.passed
    assert "not shown to be better" in decision.reasons[0]
    assert "p = 1" in decision.reasons[0]


def test_worse_challenger_is_refused() -> None:
    assert not judge_superiority(table_of(0.5), table_of(3.0, seed=1), RULES).passed


def test_broken_floor_is_named() -> None:
    decision = judge_floors({"image/auroc": 0.6}, RULES.floors, where="out-of-fold")
    assert not decision.passed
    assert "image/auroc 0.600 < 0.700" in decision.reasons[0]


@pytest.mark.parametrize(("challenger", "passes"), [(0.86, True), (0.84, False)])
def test_sealed_test_vetoes_beyond_the_margin(challenger: float, passes: bool) -> None:
    mine = {"image/auroc": challenger, "image/sensitivity": 0.9}
    decision = judge_sealed(mine, {"image/auroc": 0.9}, RULES)
    assert decision.passed is passes
    assert ("not worse" in decision.reasons[-1]) is passes


def test_sealed_floor_vetoes_without_a_champion() -> None:
    decision = judge_sealed({"image/auroc": 0.9, "image/sensitivity": 0.7}, None, RULES)
    assert not decision.passed
    assert "image/sensitivity 0.700 < 0.800" in decision.reasons[0]


def test_sealed_test_that_defines_no_score_vetoes() -> None:
    decision = judge_sealed({"image/sensitivity": 0.9}, {"image/auroc": 0.9}, RULES)
    assert not decision.passed
    assert "not defined" in decision.reasons[-1]


def test_two_decisions_pass_only_together() -> None:
    passed = judge_floors({}, {}, where="out-of-fold")
    broken = judge_floors({}, RULES.floors, where="on the sealed test")
    both = passed + broken
    assert not both.passed
    assert len(both.reasons) == 2


def test_floor_reached_but_for_rounding_is_reached() -> None:
    metrics = {"image/auroc": 0.1 + 0.2 + 0.4}  # 0.7000000000000001 or a hair less
    assert judge_floors({"image/auroc": 0.7 - 1e-15}, RULES.floors, where="here").passed
    assert judge_floors(metrics, RULES.floors, where="here").passed


def test_metric_that_is_no_number_reaches_no_floor() -> None:
    assert not judge_floors({"image/auroc": float("nan")}, RULES.floors, where="here").passed


def test_difference_of_exactly_the_margin_is_no_veto() -> None:
    mine = {"image/auroc": 0.85, "image/sensitivity": 0.9}
    assert 0.85 - 0.9 < -0.05  # by a rounding error
    assert judge_sealed(mine, {"image/auroc": 0.9}, RULES).passed
