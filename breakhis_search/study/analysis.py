"""What is learnt of a finalist beyond its scores: calibration, mistakes, official tests.

The maps of the mistakes and the answers to the official tests need the trained model of a fold, so
they are taken right after each fold; the rest follows from the pooled predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.evaluation.calibration import (
    calibrate_table,
    calibration_metrics,
    cross_fit,
    fit_calibration,
)
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.mistakes import (
    GALLERY_IMAGES,
    IMAGES_PER_PATIENT,
    mistakes_of_fold,
)
from breakhis_search.evaluation.mistakes_page import ClassMap, Explanations
from breakhis_search.evaluation.official_rates import official_rates
from breakhis_search.evaluation.page_tables import official_table
from breakhis_search.evaluation.predictions import build_predictions, is_binary
from breakhis_search.evaluation.reliability import calibration_section, reliability_points
from breakhis_search.evaluation.threshold_figures import threshold_points, threshold_section
from breakhis_search.evaluation.thresholds import lock_thresholds
from breakhis_search.models.saliency import grad_cam
from breakhis_search.study.candidate import Candidate, prior_shift, seen_images
from breakhis_search.study.context import StudyContext
from breakhis_search.tracking import keys
from breakhis_search.training.phases import predict_logits
from breakhis_search.training.probing import USUAL
from breakhis_search.training.results import IntArray


@dataclass(frozen=True)
class Findings:
    """What goes into the run of a finalist beside its scores.

    Attributes:
        metrics: By MLflow name.
        sections: For the page with the figures.
        frames: Tables by artifact path (``.csv`` or ``.parquet``).
        explanations: Maps of the mistakes.
    """

    metrics: Mapping[str, float]
    sections: tuple[Section, ...]
    frames: Mapping[str, pd.DataFrame]
    explanations: Explanations


class FinalistAnalysis:
    """Collects what each trained fold can tell and sums it up at the end.

    Args:
        context: The study.
    """

    def __init__(self, context: StudyContext) -> None:
        self._context = context
        self._maps: dict[tuple[str, str], ClassMap] = {}
        self._grid = (0, 0)
        self._absence = ""
        self._official: list[pd.DataFrame] = []

    def after_fold(
        self, candidate: Candidate, model: Any, predictions: pd.DataFrame, *, fold: int, seed: int
    ) -> None:
        """Look at a fold while its model is at hand.

        Args:
            candidate: The configuration.
            model: The trained model, images → logits.
            predictions: Of the fold's validation images.
            fold: Number of the fold.
            seed: Number of the repetition.
        """
        rows = self._context.split.folds[fold]
        images = seen_images(candidate, self._context, rows.train)
        self._explain(model, images, predictions, seed)
        if len(rows.official_test):
            answers = self._score_official(model, images, rows.official_test, fold, seed)
            self._official.append(answers)

    def findings(self, candidate: Candidate, table: pd.DataFrame) -> Findings:
        """Sum up all folds and seeds; ``table`` holds their pooled predictions."""
        correction = prior_shift(candidate, self._context)
        calibrated = cross_fit(table, correction)
        metrics = calibration_metrics(table, correction)
        sections = [calibration_section(table, calibrated)]
        frames = {keys.ARTIFACT_RELIABILITY: reliability_points(table, calibrated)}
        if is_binary(self._context.class_names):
            final = calibrate_table(table, fit_calibration(table, correction))
            sections.append(threshold_section(final, lock_thresholds(final)))
            frames["figures/thresholds.csv"] = threshold_points(final)
        if self._official:
            answers = pd.concat(self._official, ignore_index=True)
            rates = official_rates(answers)
            metrics |= _official_metrics(rates)
            sections.append(_official_section(rates, self._context))
            frames["official/rates.csv"] = rates
            frames["official/predictions.parquet"] = answers
        explanations = Explanations(self._maps, self._grid, self._absence)
        return Findings(metrics, tuple(sections), frames, explanations)

    def _explain(
        self, model: Any, images: npt.NDArray[np.uint8], predictions: pd.DataFrame, seed: int
    ) -> None:
        """Keep a map of each mistake that the gallery may show."""
        mistakes = (
            mistakes_of_fold(  # more than one seed may show: the mean over them decides later
                predictions, count=2 * GALLERY_IMAGES, per_patient=2 * IMAGES_PER_PATIENT
            )
        )
        paths = self._context.split.table["path"]
        position = pd.Series(np.arange(len(paths)), index=paths)
        rows = position[[mistake.image for mistake in mistakes]].to_numpy(dtype=np.int64)
        classes = np.array([m.predicted_index for m in mistakes], dtype=np.int64)
        saliency = grad_cam(model, np.asarray(images[rows]), classes)
        if saliency.maps is None:
            self._absence = saliency.reason
            return
        if mistakes:
            self._grid = saliency.grid
        for mistake, places in zip(mistakes, saliency.maps, strict=True):
            key = (mistake.image, mistake.predicted_class)
            self._maps.setdefault(key, ClassMap(places, seed))

    def _score_official(
        self, model: Any, images: npt.NDArray[np.uint8], rows: IntArray, fold: int, seed: int
    ) -> pd.DataFrame:
        """The answers to the official test of a fold."""
        table = self._context.split.table.iloc[rows]
        logits = predict_logits(model, images, rows, USUAL)
        return build_predictions(
            table.rename(columns={"path": "image"}),
            fold=fold,
            seed=seed,
            y_true=table["y"].to_numpy(np.int64),
            logits=logits,
            class_names=self._context.class_names,
        )


def _official_section(rates: pd.DataFrame, context: StudyContext) -> Section:
    leaks = context.tags.get(keys.OFFICIAL_LEAKS)
    leaked = (
        f" Some patients stand on both sides of a test ({escape(leaks)}), so these rates are too "
        "high for them."
        if leaks
        else ""
    )
    return Section(
        "Official tests",
        "Spanhol's recognition rates on the tests of the five published folds, mean ± standard "
        f"deviation over the folds, for comparison with the literature only.{leaked} Nothing was "
        "selected by them.",
        tables=official_table(rates),
    )


def _official_metrics(rates: pd.DataFrame) -> dict[str, float]:
    """Mean and deviation of every rate, by names such as ``official/100x/image_rate_mean``."""
    return {
        f"official/{row['magnification']}x/{row['rate']}_rate_{part}": float(row[part])
        for row in rates.to_dict("records")
        for part in ("mean", "sd")
        if np.isfinite(row[part])
    }
