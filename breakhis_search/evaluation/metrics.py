"""Numbers computed from a predictions table, under names that MLflow groups by their slashes.

There are four levels, which :mod:`.samples` defines: ``image/…``, ``patient/…`` (mean probability),
``patient_mean_logit/…`` and ``patient_majority_vote/…`` (decisions only). ``patient/`` also holds
Spanhol's ``recognition_rate``, a definition of its own; his image recognition rate is
``image/accuracy``. ``magnification_100/image/…`` holds the headline metrics of the images at 100X.
A metric that is undefined (a class is absent, a division is 0/0) is left out: it is neither NaN nor
0 by convention. :func:`undefined_metrics` says which and why.

Rules:

* Where several seeds scored the images, a metric is the mean of the metrics of each seed; it is
  undefined if it is so for one of them.
* Per-class metrics exist for classes that occur in ``y_true``; macro averages and balanced accuracy
  run over those, and need at least two.
* Precision of a class that is never predicted is 0/0, and so is a macro precision that includes it.
  (Its F1 is not: 2 TP / (2 TP + FP + FN) = 0.)
* AUROC and average precision: *malignant* as positive in the binary task; otherwise the mean over
  the classes that can be scored, each against the rest.
* ``mcc`` is the multiclass correlation R_K (J. Gorodkin, Comput. Biol. Chem. 28, 2004); 0/0 where
  truth or prediction is constant.
* ``nll`` is the mean of -ln p(true class), in nats. ``brier`` is the mean squared error of the
  probabilities, summed over the classes, in [0, 2]; in the binary task that of *malignant* alone,
  in [0, 1], as it is usual (and as scikit-learn has it).
* ``patient/recognition_rate`` is the mean over patients of the share of their images that are right
  (Spanhol et al., IEEE TBME 63(7), 2016). It is neither ``patient/accuracy``, the share of patients
  whose mean probability is right, nor ``patient_majority_vote/accuracy``, the share of patients
  whose images vote right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.errors import DataError
from breakhis_search.evaluation.predictions import is_binary, softmax, tables_by_seed
from breakhis_search.evaluation.ranking import (
    area_under_roc,
    average_precision,
    count_by_threshold,
)
from breakhis_search.evaluation.samples import (
    LEVELS,
    Decisions,
    Level,
    Sample,
    check_not_empty,
    confusion_matrix,
    decisions_of,
    recognition_shares,
    sample_of,
    samples_by_seed,
)

Objective = Literal["auroc", "balanced_accuracy"]

OBJECTIVE_TITLES: dict[str, str] = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
}
"""What the objectives are called in sentences."""

HEADLINE_METRICS: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "auroc",
    "average_precision",
    "mcc",
)
"""The metrics that are also given per magnification."""

RECOGNITION_RATE = "recognition_rate"
"""What only level ``patient`` has; also given per magnification."""

VOTE_METRICS: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "precision_macro",
    "f1_macro",
    "mcc",
)
"""What level ``patient_majority_vote`` has, beside the recall of each class."""

_ONE_CLASS = "fewer than two classes are present"


@dataclass
class _Outcome:
    """Metrics that have a value, and the reasons of those that have none."""

    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | None, reason: str) -> None:
        if value is None:
            self.reasons[name] = reason
        else:
            self.values[name] = float(value)

    @property
    def known(self) -> list[str]:
        """All names, with a value or with a reason."""
        return [*self.values, *self.reasons]

    def take(self, other: _Outcome, prefix: str) -> None:
        """Take over everything that is known of another level, under a prefix."""
        self.values.update({prefix + name: value for name, value in other.values.items()})
        self.reasons.update({prefix + name: reason for name, reason in other.reasons.items()})

    def only(self, names: Sequence[str]) -> _Outcome:
        """Return what is known of these metrics alone."""
        return _Outcome(
            {name: value for name, value in self.values.items() if name in names},
            {name: reason for name, reason in self.reasons.items() if name in names},
        )


def compute_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return every metric of a predictions table that is defined, by its flat name.

    Args:
        table: A predictions table with at least one row and any number of seeds. It is not checked
            again here, so that resampled tables can be measured too.

    Returns:
        Finite values, such as ``{"image/accuracy": 0.81, "patient/recall_malignant": 0.9, …}``.

    Raises:
        DataError: The table is empty.
    """
    return _measure(table).values


def undefined_metrics(table: pd.DataFrame) -> dict[str, str]:
    """Return the metrics that :func:`compute_metrics` leaves out, each with its reason in words."""
    return _measure(table).reasons


def score(table: pd.DataFrame, objective: Objective) -> float:
    """Return what a study maximises: the objective over all images, in [0, 1], mean of the seeds.

    Raises:
        DataError: The objective is undefined because fewer than two classes are there.
    """
    samples = samples_by_seed(table, "image")
    return float(np.mean([_score_of_seed(sample, objective) for sample in samples]))


def _score_of_seed(sample: Sample, objective: Objective) -> float:
    value = _objective_value(sample.y_true, sample.probabilities, objective)
    if value is None:
        raise DataError(
            f"{objective} cannot be computed",
            expected="scored images of at least two classes",
            received=", ".join(sample.names_present),
        )
    return value


def epoch_score(y_true: npt.ArrayLike, logits: npt.ArrayLike, objective: Objective) -> float | None:
    """Return the objective of one fold after one epoch, or ``None`` where it has none.

    Args:
        y_true: Class indices, int [n].
        logits: float [n, K].
        objective: What to compute; macro averages run over the classes that this fold holds.

    Returns:
        A value in [0, 1]; ``None`` if fewer than two classes are there or a logit is not finite.

    >>> epoch_score([0, 1, 1], [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], "balanced_accuracy")
    0.75
    >>> epoch_score([1, 1], [[2.0, 0.0], [0.0, 1.0]], "auroc") is None
    True
    """
    scores = np.asarray(logits, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        return None
    return _objective_value(np.asarray(y_true, dtype=np.int64), softmax(scores), objective)


def _measure(table: pd.DataFrame) -> _Outcome:
    """Measure each seed, and average them."""
    check_not_empty(table)
    outcomes = [_measure_seed(part) for part in tables_by_seed(table)]
    return outcomes[0] if len(outcomes) == 1 else _mean_of(outcomes)


def _mean_of(outcomes: Sequence[_Outcome]) -> _Outcome:
    """Return the mean of what every seed has, and a reason for everything else."""
    mean = _Outcome()
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.known)
    for name in names:
        reasons = [outcome.reasons[name] for outcome in outcomes if name in outcome.reasons]
        if reasons:
            mean.reasons[name] = f"{reasons[0]} (in {len(reasons)} of {len(outcomes)} seeds)"
        else:
            mean.values[name] = float(np.mean([outcome.values[name] for outcome in outcomes]))
    return mean


def _measure_seed(table: pd.DataFrame) -> _Outcome:
    """Measure the whole table in full and each magnification by its headlines."""
    outcome = _Outcome()
    for level in LEVELS:
        outcome.take(_measure_level(table, level), f"{level}/")
    headlines = (*HEADLINE_METRICS, RECOGNITION_RATE)
    for magnification, part in table.groupby("magnification", sort=True):
        for level in LEVELS:
            prefix = f"magnification_{magnification}/{level}/"
            outcome.take(_measure_level(part, level).only(headlines), prefix)
    return outcome


def _measure_level(table: pd.DataFrame, level: Level) -> _Outcome:
    outcome = _Outcome()
    if level == "patient_majority_vote":
        votes = decisions_of(table, level)
        _add_decision_metrics(outcome, votes)
        return outcome.only((*VOTE_METRICS, *(f"recall_{name}" for name in votes.class_names)))
    sample = sample_of(table, level)
    _add_decision_metrics(outcome, sample.decisions)
    _add_ranking_metrics(outcome, sample)
    _add_likelihood(outcome, sample)
    if level == "patient":
        outcome.add(RECOGNITION_RATE, float(recognition_shares(table)[0].mean()), "")
    return outcome


def _add_decision_metrics(outcome: _Outcome, decisions: Decisions) -> None:
    """Add what follows from the decided classes alone."""
    matrix = confusion_matrix(decisions)
    right, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    outcome.add("accuracy", right.sum() / true.sum(), "")
    for index, name in enumerate(decisions.class_names):
        _add_class_decisions(outcome, name, right[index], true[index], predicted[index])
    for metric in ("precision", "recall", "f1"):
        _add_macro(outcome, decisions, metric)
    recall = outcome.values.get("recall_macro")  # balanced accuracy is its other name
    outcome.add("balanced_accuracy", recall, outcome.reasons.get("recall_macro", ""))
    outcome.add("mcc", _matthews(matrix), "the true or the predicted class is the same everywhere")


def _add_class_decisions(
    outcome: _Outcome, name: str, right: np.int64, true: np.int64, predicted: np.int64
) -> None:
    """Add precision, recall and F1 of a class from its counts; none of them if it is absent."""
    absent = f"class {name!r} is absent from y_true"
    unpredicted = f"class {name!r} is never predicted" if true else absent
    outcome.add(f"precision_{name}", _ratio(right, predicted) if true else None, unpredicted)
    outcome.add(f"recall_{name}", _ratio(right, true), absent)
    outcome.add(f"f1_{name}", _ratio(2 * right, true + predicted) if true else None, absent)


def _add_macro(outcome: _Outcome, decisions: Decisions, metric: str) -> None:
    """Add the mean of a metric over the classes that are there."""
    present = decisions.names_present
    missing = [name for name in present if f"{metric}_{name}" not in outcome.values]
    if len(present) < 2:
        outcome.add(f"{metric}_macro", None, _ONE_CLASS)
    elif missing:
        # Only precision: of a class that is there, recall and F1 always have a value.
        reason = f"{metric} has no value for {', '.join(missing)}: never predicted"
        outcome.add(f"{metric}_macro", None, reason)
    else:
        mean = np.mean([outcome.values[f"{metric}_{name}"] for name in present])
        outcome.add(f"{metric}_macro", float(mean), "")


def _add_ranking_metrics(outcome: _Outcome, sample: Sample) -> None:
    """Add AUROC and average precision, per class and together."""
    for index, name in enumerate(sample.class_names):
        counts = count_by_threshold(sample.y_true == index, sample.probabilities[:, index])
        present = counts.true_positives[-1] > 0
        reason = _ONE_CLASS if present else f"class {name!r} is absent from y_true"
        outcome.add(f"auroc_{name}", area_under_roc(counts), reason)
        outcome.add(f"average_precision_{name}", average_precision(counts), reason)
    for metric in ("auroc", "average_precision"):
        value = _mean_over_scored(
            [outcome.values.get(f"{metric}_{name}") for name in _ranked_classes(sample)]
        )
        outcome.add(metric, value, _ONE_CLASS)


def _ranked_classes(sample: Sample) -> tuple[str, ...]:
    """Return the classes whose ranking counts: the positive one, or all of them."""
    return sample.class_names[1:] if is_binary(sample.class_names) else sample.class_names


def _add_likelihood(outcome: _Outcome, sample: Sample) -> None:
    chosen = sample.probabilities[np.arange(len(sample.y_true)), sample.y_true]
    reason = "a true class was given the probability 0"
    outcome.add("nll", float(-np.log(chosen).mean()) if chosen.all() else None, reason)
    outcome.add("brier", float(squared_errors(sample).mean()), "")


def squared_errors(sample: Sample) -> npt.NDArray[np.float64]:
    """Return the squared error of each row's probabilities, float64 [n]; its mean is ``brier``."""
    classes = len(sample.class_names)
    errors = (sample.probabilities - np.eye(classes)[sample.y_true]) ** 2
    # Of two classes, both errors are equal; one of them is the binary Brier score.
    return np.asarray(errors[:, 1] if is_binary(sample.class_names) else errors.sum(axis=1))


def _matthews(matrix: npt.NDArray[np.int64]) -> float | None:
    """Return R_K of a confusion matrix in [-1, 1], or ``None`` for 0/0."""
    cells = matrix.astype(np.float64)
    true, predicted, total = cells.sum(axis=1), cells.sum(axis=0), cells.sum()
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    if spread == 0:
        return None
    return float((cells.trace() * total - true @ predicted) / np.sqrt(spread))


def _objective_value(
    y_true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], objective: Objective
) -> float | None:
    if objective == "balanced_accuracy":
        right = probabilities.argmax(axis=1) == y_true
        recalls = [float(right[y_true == index].mean()) for index in np.unique(y_true)]
        return float(np.mean(recalls)) if len(recalls) >= 2 else None
    return _mean_over_scored(list(_auroc_by_class(y_true, probabilities)))


def _auroc_by_class(
    y_true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> Iterator[float | None]:
    """Yield the AUROC of each class against the rest; of two classes, the second one alone."""
    classes = probabilities.shape[1]
    for index in range(1 if classes == 2 else 0, classes):
        yield area_under_roc(count_by_threshold(y_true == index, probabilities[:, index]))


def _mean_over_scored(values: Sequence[float | None]) -> float | None:
    scored = [value for value in values if value is not None]
    return float(np.mean(scored)) if scored else None


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
