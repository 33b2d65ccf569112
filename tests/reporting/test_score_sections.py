"""Tables of scores in a model card, from small predictions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from breakhis_search.evaluation.calibration import Calibration, calibrate_table
from breakhis_search.evaluation.predictions import build_predictions
from breakhis_search.evaluation.thresholds import lock_thresholds
from breakhis_search.reporting.measured import measure_out_of_fold
from breakhis_search.reporting.score_sections import (
    calibration_section,
    cell_section,
    class_section,
    confusion_section,
    score_section,
    threshold_section,
)


def predictions(patients: int) -> pd.DataFrame:
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
            "type": np.where(y == 1, "ductal_carcinoma", "adenosis"),
        }
    )
    margin = (2 * y - 1) + rng.normal(0, 1.5, len(y))
    logits = np.stack([-margin, margin], axis=1).astype(np.float32)
    return build_predictions(
        images, fold=0, y_true=y, logits=logits, class_names=("benign", "malignant")
    )


@pytest.fixture(scope="module")
def measured():
    table = predictions(16)
    calibration = Calibration((0.0, 0.0), 1.0)
    thresholds = lock_thresholds(calibrate_table(table, calibration))
    return measure_out_of_fold(table, calibration, thresholds, resamples=200)


def test_scores_stand_with_their_intervals(measured):
    text = score_section(measured)
    assert "32 images of 16 patients (benign 8, malignant 8)" in text
    value, interval = (
        measured.intervals.values["image/auroc"],
        measured.intervals.known["image/auroc"],
    )
    assert f"| {value:.3f} \\[{interval.low:.3f}, {interval.high:.3f}\\] |" in text


def test_few_patients_get_no_interval_but_the_reason():
    text = class_section(measure_out_of_fold(predictions(6), None, None, resamples=50))
    assert "[" not in text
    assert "(a)" in text
    assert "too few patients" in text


def test_cells_give_images_and_patients(measured):
    [adenosis] = [
        line for line in cell_section(measured, "cells.csv").splitlines() if "adenosis" in line
    ]
    assert "(8 / 8)" in adenosis
    assert "(16 / 8)" in adenosis


def test_thresholds_of_all_rules_at_both_levels(measured):
    rows = [line for line in threshold_section(measured.points).splitlines() if "|" in line]
    assert len(rows) == 2 + 6
    assert rows[2].startswith("| image | 0.5 | 0.500 |")


@pytest.mark.parametrize(("after", "is_told"), [(0.5, True), (0.3, False)])
def test_a_calibration_that_makes_a_level_worse_is_told(measured, after, is_told):
    scores = {f"calibration/{state}/image/nll": 0.4 for state in ("before", "after")}
    scores |= {"calibration/before/patient/nll": 0.4, "calibration/after/patient/nll": after}
    told = calibration_section(dataclasses.replace(measured, calibration=scores))
    assert ("does not help the probabilities of patients" in told) == is_told
    assert "probabilities of images" not in told


def test_a_model_without_mistakes_is_said_to_have_none():
    table = predictions(6)
    columns = ["logit_benign", "logit_malignant"]
    table[columns] = (9 * np.eye(2)[table["y_true"]]).astype(np.float32)
    text = confusion_section(measure_out_of_fold(table, None, None, resamples=50))
    assert text == "No image was given to a wrong class."
