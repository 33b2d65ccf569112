"""The out-of-fold predictions of one trained fold."""

from __future__ import annotations

import pandas as pd

from breakhis_search.errors import TrialFailure
from breakhis_search.evaluation.predictions import build_predictions
from breakhis_search.study.context import StudyContext
from breakhis_search.training.results import FoldResult, TrainingData


def predictions_of_fold(
    context: StudyContext, number: int, data: TrainingData, result: FoldResult, *, seed: int = 0
) -> pd.DataFrame:
    """Return the checked predictions of the validation images of fold ``number``.

    Raises:
        TrialFailure: The fold answered nothing.
    """
    if result.logits is None:
        raise TrialFailure(f"fold {number} has no validation images", remedy="report a defect")
    rows = context.split.table.iloc[context.split.folds[number].validation]
    return build_predictions(
        rows.rename(columns={"path": "image"}),
        fold=number,
        seed=seed,
        y_true=data.validation_y,
        logits=result.logits,
        class_names=context.class_names,
    )
