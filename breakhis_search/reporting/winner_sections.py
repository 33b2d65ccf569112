"""The part of a study's report that is about the selected model: its scores, from all sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from breakhis_search.evaluation.calibration import Calibration, calibrate_table, cross_fit
from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.figures import confusion_figure, pr_figure, roc_figure
from breakhis_search.evaluation.intervals import Intervals
from breakhis_search.evaluation.magnification_figures import (
    magnification_confusions,
    magnification_curves,
    magnification_figure,
)
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES, Objective
from breakhis_search.evaluation.page_tables import cell_heat_table, class_table, headline_table
from breakhis_search.evaluation.patient_strips import patient_strips
from breakhis_search.evaluation.predictions import class_names_of, is_binary
from breakhis_search.evaluation.reliability import (
    calibration_section,
    class_reliability_figure,
    magnification_reliability_figure,
)
from breakhis_search.evaluation.samples import DRAWN_LEVELS
from breakhis_search.evaluation.threshold_figures import threshold_section
from breakhis_search.evaluation.thresholds import Thresholds


@dataclass(frozen=True)
class Winner:
    """The selected finalist, scored out-of-fold.

    Attributes:
        table: Its predictions, as the model gave them.
        intervals: Of its scores.
        calibration: Of the version that was registered of it; ``None`` where there is none.
        thresholds: As that version locked them; ``None`` where it has none.
        gallery: Its most confident mistakes, as HTML; empty where they were not kept.
    """

    table: pd.DataFrame
    intervals: Intervals
    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    gallery: str = ""


def winner_sections(winner: Winner, objective: Objective) -> Iterator[Section]:
    """Yield the sections, from the scores to each patient."""
    table, intervals = winner.table, winner.intervals
    yield Section(
        "The winner: scores",
        "Pooled out-of-fold, mean of the seeds; in brackets 95 % intervals over patients.",
        tables=headline_table(intervals) + class_table(table, intervals),
    )
    known = intervals.known if is_binary(class_names_of(table)) else None
    curves = [roc_figure(table, level, intervals=known) for level in DRAWN_LEVELS]
    curves += [pr_figure(table, level) for level in DRAWN_LEVELS]
    yield Section("The winner: curves", "Left by image, right by patient.", curves)
    yield Section(
        "The winner: confusion",
        "A row is a true class and says what it was taken for.",
        [confusion_figure(table, level, "count") for level in DRAWN_LEVELS],
    )
    yield _magnifications(winner, objective)
    yield from _calibration(winner)
    yield Section(
        "The winner: patient by patient",
        "A row is a patient, a mark one of the patient's images.",
        [patient_strips(table)],
    )


def _magnifications(winner: Winner, objective: Objective) -> Section:
    table, intervals = winner.table, winner.intervals
    binary = is_binary(class_names_of(table))
    chance = 0.5 if binary else 1 / max(1, int(table["y_true"].nunique()))
    bars = magnification_figure(
        intervals.values,
        objective,
        label=OBJECTIVE_TITLES[objective],
        chance=chance,
        intervals=intervals.known,
    )
    curves = [
        magnification_curves(table, level, kind) for kind in ("roc", "pr") for level in DRAWN_LEVELS
    ]
    reading = (
        "Each cell says, from the top: the share of images that are right, of patients that are"
        " right in three ways, the patient recognition rate, the mean probability of the true"
        " class, and how many stand behind them. Bars, curves and matrices score the images taken"
        " at one magnification alone."
    )
    return Section(
        "The winner: by tumour type and magnification",
        reading,
        [bars, *curves, *magnification_confusions(table)],
        [] if any(curves) else ["At a single magnification there are no curves to compare."],
        tables=cell_heat_table(cell_table(table)),
    )


def _calibration(winner: Winner) -> Iterator[Section]:
    if winner.calibration is None:
        return
    # Judged with the temperature of other patients: its own would flatter.
    judged = cross_fit(winner.table, winner.calibration.prior_correction)
    yield calibration_section(winner.table, judged)
    figures = [class_reliability_figure(judged), magnification_reliability_figure(judged)]
    if any(figures):
        yield Section(
            "Calibration, part by part",
            "The calibrated probabilities of the images again, taken apart: one temperature serves"
            " all, so a line that lies on one side is a part that it does not serve.",
            figures,
        )
    if winner.thresholds is not None:
        calibrated = calibrate_table(winner.table, winner.calibration)
        yield threshold_section(calibrated, winner.thresholds)
