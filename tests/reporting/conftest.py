"""Facts of a version, made by hand from small predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from breakhis_search.comparison.gate import GateRules
from breakhis_search.comparison.history import ChampionChange
from breakhis_search.comparison.leaderboard import COLUMNS
from breakhis_search.comparison.version_facts import VersionFacts
from breakhis_search.evaluation.calibration import Calibration, calibrate_table
from breakhis_search.evaluation.predictions import build_predictions
from breakhis_search.evaluation.thresholds import lock_thresholds
from breakhis_search.reporting.facts import Facts
from breakhis_search.reporting.measured import measure_out_of_fold, measure_sealed
from breakhis_search.reporting.search_facts import SearchFacts
from breakhis_search.tracking import keys

CALIBRATION = Calibration((0.25, -0.25), 1.5)
BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def predictions(patients: int, *, types: tuple[str, str] = ("adenosis", "ductal_carcinoma")) -> Any:
    """Two images of each patient, half of the patients benign, some images wrong."""
    rng = np.random.default_rng(0)
    names = [f"14-{number}" for number in range(patients) for _ in range(2)]
    y = np.array([int(name.partition("-")[2]) % 2 for name in names])
    images = pd.DataFrame(
        {
            "image": [f"{name}-{row}.png" for row, name in enumerate(names)],
            "slide": names,
            "accession": names,
            "magnification": [40, 100] * patients,
            "type": np.where(y == 1, types[1], types[0]),
        }
    )
    margin = (2 * y - 1) + rng.normal(0, 1.5, len(y))
    logits = np.stack([-margin, margin], axis=1).astype(np.float32)
    return build_predictions(
        images, fold=0, y_true=y, logits=logits, class_names=("benign", "malignant")
    )


def board() -> pd.DataFrame:
    """One finalist of a search of two trials, one of which failed."""
    rows = [
        {"trial": 0, "stage": keys.STAGE_FINALISTS, "state": "complete", "reason": ""},
        {"trial": 0, "stage": keys.STAGE_SEARCH, "state": "complete", "reason": ""},
        {
            "trial": 1,
            "stage": keys.STAGE_SEARCH,
            "state": "failed",
            "reason": "out of memory | <b>",
        },
    ]
    started = int(BEGUN.timestamp() * 1000)
    table = pd.DataFrame([{**row, "started_ms": started + 60_000} for row in rows])
    return table.reindex(columns=list(COLUMNS))


def finalist() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "trial": 0,
                "name": "my|net_",
                "score": 0.8,
                "difference": 0.0,
                "low": np.nan,
                "high": np.nan,
                "p_holm": np.nan,
                "tied": True,
                "selected": True,
            }
        ]
    )


@pytest.fixture(scope="session")
def measured() -> Any:
    """What 16 patients say, 200 draws."""
    table = predictions(16)
    thresholds = lock_thresholds(calibrate_table(table, CALIBRATION))
    return measure_out_of_fold(table, CALIBRATION, thresholds, resamples=200)


@pytest.fixture(scope="session")
def sealed() -> Any:
    """What a sealed test of four patients without adenosis says."""
    thresholds = lock_thresholds(calibrate_table(predictions(16), CALIBRATION))
    table = predictions(4, types=("fibroadenoma", "ductal_carcinoma"))
    return measure_sealed(table, CALIBRATION, thresholds, resamples=50)


@pytest.fixture
def make_facts(measured: Any) -> Callable[..., Facts]:
    """Facts of version 2, which is challenger; any of them changed."""
    thresholds = lock_thresholds(calibrate_table(predictions(16), CALIBRATION))
    tags = {
        keys.STUDY: "binary@v1",
        keys.TASK: "binary",
        keys.EVIDENCE_RUN: "e" * 32,
        keys.WHY_SELECTED: "trial 0 (my|net_) is the only finalist",
        keys.SELECTED_TRIAL: "0",
        keys.PROTOCOL: "folds",
        keys.SEALED_TEST: "4 patients",
        keys.SEALED_DIGEST: "d" * 64,
        keys.ARCHITECTURE: "my|net_",
        keys.SAMPLING: "focal",
        keys.SPLIT_NOTES: '["no sealed patient has: tubular_adenoma"]',
        f"{keys.VERSIONS}keras": "3.15.1",
    }
    facts = Facts(
        version=VersionFacts(
            name="breakhis-binary",
            version="2",
            aliases=("challenger",),
            study="binary@v1",
            objective="auroc",
            score=0.8,
            magnification="all",
            below_floors=(),
            forced=False,
            fails_sealed=False,
            demo=False,
        ),
        registered=datetime(2026, 1, 2, 5, tzinfo=UTC),
        tags=tags,
        params={"optimizer/learning_rate": "0.00044209017121357", "preprocessing/stain": "macenko"},
        parameters=11_402,
        weights="file abc",
        config={
            "protocol": {"folds": 3, "group_by": "accession"},
            "space": {"optimizer/learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
            "finalists": {"seeds": 1},
        },
        study_tags={},
        begun=BEGUN,
        board=board(),
        search=SearchFacts(
            tried={
                "optimizer/learning_rate": {"0.00044209017121357": 1, "0.001": 1},
                "data/height_px": {"32": 2},
            },
            ended=datetime(2026, 1, 2, 4, tzinfo=UTC),
        ),
        selection=finalist(),
        calibration=CALIBRATION,
        thresholds=thresholds,
        rules=GateRules("auroc", 0.05, 0.05, {"image/auroc": 0.7}, {}),
        history=(
            ChampionChange(
                "1", None, "registered", "2026-01-01T00:00:00+00:00", "there was no champion"
            ),
        ),
        answers=(),
        openings=(),
        also_opened_for=(),
        out_of_fold=measured,
        sealed=None,
    )
    return lambda **changes: replace(facts, **changes)
