"""Every metric of every resample at once, from sums by patient instead of resampled tables.

A resample draws whole accessions with replacement; it is a row of weights that says how often each
one counts. All of :func:`.metrics.compute_metrics` follows from sums by accession: decisions from
confusion counts, AUROC from pairs of patients, average precision from counts at each threshold.
The values are those that ``compute_metrics`` gives of the table with its rows repeated, where an
accession that is drawn twice is two patients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.evaluation.metrics import (
    HEADLINE_METRICS,
    RECOGNITION_RATE,
    VOTE_METRICS,
    squared_errors,
)
from breakhis_search.evaluation.pairwise import FloatArray, IntArray, pairwise_wins
from breakhis_search.evaluation.predictions import is_binary, tables_by_seed
from breakhis_search.evaluation.samples import (
    LEVELS,
    Decisions,
    Level,
    Sample,
    TextArray,
    decisions_of,
    recognition_shares,
    sample_of,
)

MIN_PATIENTS = 5
"""Fewer are no sample to draw from: the variance of draws of n patients is (n - 1) / n of theirs,
and the most extreme draws of three patients are one patient three times, one draw in nine."""

_DRAWS_AT_ONCE = 256
"""So that an array [draws, thresholds] of all images stays in the processor's cache."""

Values = dict[str, FloatArray]
BoolArray = npt.NDArray[np.bool_]


def accessions_of(table: pd.DataFrame) -> TextArray:
    """Return the accessions of a table, sorted, str [A]: the units that are resampled."""
    return np.unique(table["accession"].to_numpy(object))


def strata_of(table: pd.DataFrame) -> IntArray:
    """Return the stratum of each accession, int [A], in the order of :func:`accessions_of`.

    A stratum holds the accessions of the same class, or of the same set of classes. Those with
    fewer than :data:`MIN_PATIENTS` accessions are drawn as one (with the next smallest, if they
    are still too few together): drawn alone, a single accession would never vary.
    """
    groups = table.groupby("accession", sort=True)["y_true"]
    held = pd.Series([",".join(map(str, sorted(set(part)))) for _, part in groups])
    sizes = held.value_counts()
    order = sorted(sizes.index, key=lambda classes: (int(sizes[classes]), classes))
    rare = int((sizes < MIN_PATIENTS).sum())
    while 0 < rare < len(order) and sizes[order[:rare]].sum() < MIN_PATIENTS:
        rare += 1
    number = {classes: max(0, rank - rare + 1) for rank, classes in enumerate(order)}
    return held.map(number).to_numpy(np.int64)


def draw_weights(stratum: IntArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each resample draws each accession; every stratum keeps its size.

    Args:
        stratum: The stratum of each accession, int [A].
        resamples: B.
        rng: Source of randomness.

    Returns:
        float64 [B, A], whole numbers.

    >>> drawn = draw_weights(np.array([0, 1, 1]), 4, np.random.default_rng(0))
    >>> drawn[:, 0].tolist(), drawn.sum(axis=1).tolist()
    ([1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0])
    """
    weights = np.zeros((resamples, len(stratum)))
    for index in np.unique(stratum):
        members = np.flatnonzero(stratum == index)
        even = np.full(len(members), 1 / len(members))
        weights[:, members] = rng.multinomial(len(members), even, size=resamples)
    return weights


def resampled_metrics(table: pd.DataFrame, weights: FloatArray) -> Values:
    """Return every metric of every resample.

    Args:
        table: A predictions table; of several seeds, a metric is the mean over them.
        weights: How often each accession counts, float [B, A], in the order of
            :func:`accessions_of`.

    Returns:
        All names that ``compute_metrics`` may give, each float64 [B], NaN where the metric is
        undefined.
    """
    accessions = accessions_of(table)
    by_seed = [_metrics_of_seed(part, accessions, weights) for part in tables_by_seed(table)]
    if len(by_seed) == 1:
        return by_seed[0]
    return {name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]}


def _metrics_of_seed(table: pd.DataFrame, accessions: TextArray, weights: FloatArray) -> Values:
    values: Values = {}
    for prefix, part in _parts(table):
        for level in LEVELS:
            found = _metrics_of_level(part, level, accessions, weights)
            wanted = (*HEADLINE_METRICS, RECOGNITION_RATE) if prefix else tuple(found)
            values |= {f"{prefix}{level}/{k}": v for k, v in found.items() if k in wanted}
    return values


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "", table
    for magnification, part in table.groupby("magnification", sort=True):
        yield f"magnification_{magnification}/", part


def _metrics_of_level(
    table: pd.DataFrame, level: Level, accessions: TextArray, weights: FloatArray
) -> Values:
    if level == "patient_majority_vote":
        votes = decisions_of(table, level)
        found = decision_values(votes, _index_of(votes.accession, accessions), weights)
        recalls = [f"recall_{name}" for name in votes.class_names]
        return {name: found[name] for name in (*VOTE_METRICS, *recalls)}
    sample = sample_of(table, level)
    owner = _index_of(sample.accession, accessions)
    values = decision_values(sample.decisions, owner, weights)
    values |= _ranking_values(sample, owner, weights)
    values |= _likelihood_values(sample, owner, weights)
    if level == "patient":
        shares, accession = recognition_shares(table)
        values[RECOGNITION_RATE] = _weighted_mean(shares, _index_of(accession, accessions), weights)
    return values


def _index_of(accession: TextArray, accessions: TextArray) -> IntArray:
    return np.asarray(np.searchsorted(accessions, accession), dtype=np.int64)


def decision_values(decisions: Decisions, owner: IntArray, weights: FloatArray) -> Values:
    """Return what follows from the decided classes alone, for every resample.

    Args:
        decisions: The rows of a level.
        owner: Index of the accession of each row, int [n].
        weights: float [B, A].

    Returns:
        Metrics by name, each float64 [B], NaN where undefined.
    """
    cells = _confusions(decisions, owner, weights)
    true, predicted = cells.sum(axis=2), cells.sum(axis=1)
    right = np.einsum("bkk->bk", cells)
    there = true > 0
    by_class = {
        "precision": np.where(there, _ratio(right, predicted), np.nan),
        "recall": _ratio(right, true),
        "f1": np.where(there, _ratio(2 * right, true + predicted), np.nan),
    }
    values: Values = {"accuracy": _ratio(right.sum(axis=1), true.sum(axis=1))}
    for metric, columns in by_class.items():
        for index, name in enumerate(decisions.class_names):
            values[f"{metric}_{name}"] = columns[:, index]
        values[f"{metric}_macro"] = _mean_over(columns, there, at_least=2)
    values["balanced_accuracy"] = values["recall_macro"]
    values["mcc"] = _matthews(right.sum(axis=1), true, predicted)
    return values


def _confusions(decisions: Decisions, owner: IntArray, weights: FloatArray) -> FloatArray:
    """Return the confusion matrix of every resample, float64 [B, K, K]."""
    classes = len(decisions.class_names)
    cell = decisions.y_true * classes + decisions.y_pred
    counts = np.zeros((weights.shape[1], classes**2))
    np.add.at(counts, (owner, cell), 1.0)
    return (weights @ counts).reshape(len(weights), classes, classes)


def _matthews(right: FloatArray, true: FloatArray, predicted: FloatArray) -> FloatArray:
    """Return R_K of every resample, float64 [B], from [B], [B, K] and [B, K]."""
    total = true.sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return _ratio(right * total - (true * predicted).sum(axis=1), np.sqrt(spread))


def _ranking_values(sample: Sample, owner: IntArray, weights: FloatArray) -> Values:
    """Return AUROC and average precision, per class and together."""
    values: Values = {}
    for index, name in enumerate(sample.class_names):
        is_positive, scores = sample.y_true == index, sample.probabilities[:, index]
        ranking = pairwise_wins(is_positive, scores, owner, weights.shape[1])
        values[f"auroc_{name}"] = auroc = ranking.auroc(weights)
        precision = average_precisions(is_positive, scores, owner, weights)
        values[f"average_precision_{name}"] = np.where(np.isnan(auroc), np.nan, precision)
    ranked = sample.class_names[1:] if is_binary(sample.class_names) else sample.class_names
    for metric in ("auroc", "average_precision"):
        columns = np.column_stack([values[f"{metric}_{name}"] for name in ranked])
        values[metric] = _mean_over(columns, ~np.isnan(columns), at_least=1)
    return values


def average_precisions(
    is_positive: BoolArray,
    scores: FloatArray,
    owner: IntArray,
    weights: FloatArray,
) -> FloatArray:
    """Return the average precision of every resample.

    It is a sum over the thresholds that find positives, of precision times the positives found
    there; rows at or above each of them are counted once by accession, and weighted after that.

    Args:
        is_positive: bool [n].
        scores: Higher means more positive, float [n].
        owner: Index of the accession of each row, int [n].
        weights: float [B, A].

    Returns:
        float64 [B]; NaN where no positive is drawn.

    >>> labels, patients = np.array([True, False, True]), np.array([0, 1, 2])
    >>> average_precisions(labels, np.array([0.9, 0.8, 0.7]), patients, np.ones((1, 3))).round(4)
    array([0.8333])
    """
    found, called = _counts_by_threshold(is_positive, scores, owner, weights.shape[1])
    areas = np.full(len(weights), np.nan)
    for start in range(0, len(weights) if found.shape[1] else 0, _DRAWS_AT_ONCE):
        chosen = weights[start : start + _DRAWS_AT_ONCE]
        true_positives, positives = chosen @ found, chosen @ called
        gain = np.diff(true_positives, prepend=0.0)
        precision = np.divide(true_positives, positives, out=positives, where=positives > 0)
        area = np.einsum("bt,bt->b", gain, precision)
        areas[start : start + _DRAWS_AT_ONCE] = _ratio(area, true_positives[:, -1])
    return areas


def _counts_by_threshold(
    is_positive: BoolArray,
    scores: FloatArray,
    owner: IntArray,
    n_accessions: int,
) -> tuple[FloatArray, FloatArray]:
    """Return positives and rows of each accession at or above each threshold, float64 [A, t].

    Thresholds are the distinct scores of positives, from the highest down: the others add nothing.
    """
    thresholds = -np.unique(-scores[is_positive])
    rank = np.searchsorted(-thresholds, -scores, side="left")  # the first threshold that takes it
    counts = np.zeros((2, n_accessions, len(thresholds) + 1))
    np.add.at(counts[0], (owner[is_positive], rank[is_positive]), 1.0)
    np.add.at(counts[1], (owner, rank), 1.0)
    found, called = counts[:, :, :-1].cumsum(axis=2)  # what lies below every threshold is last
    return found, called


def _likelihood_values(sample: Sample, owner: IntArray, weights: FloatArray) -> Values:
    chosen = sample.probabilities[np.arange(len(sample.y_true)), sample.y_true]
    impossible = chosen == 0
    surprise = -np.log(np.where(impossible, 1.0, chosen))
    drawn = weights @ np.bincount(owner, impossible, minlength=weights.shape[1]) > 0
    return {
        "nll": np.where(drawn, np.nan, _weighted_mean(surprise, owner, weights)),
        "brier": _weighted_mean(squared_errors(sample), owner, weights),
    }


def _weighted_mean(values: FloatArray, owner: IntArray, weights: FloatArray) -> FloatArray:
    """Return the mean over the rows of every resample, float64 [B], of values [n]."""
    sums, counts = (
        np.bincount(owner, summed, minlength=weights.shape[1]) for summed in (values, None)
    )
    return _ratio(weights @ sums, weights @ counts)


def _mean_over(columns: FloatArray, there: BoolArray, *, at_least: int) -> FloatArray:
    """Return the mean over the columns that are there, float64 [B]; NaN if one of them is NaN."""
    count = there.sum(axis=1)
    total = np.where(there, columns, 0.0).sum(axis=1)
    return np.where(count >= at_least, _ratio(total, count.astype(np.float64)), np.nan)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole, NaN for a whole of 0."""
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))
