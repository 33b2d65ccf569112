"""The points of every figure as data: ROC and precision-recall lines, and the confusion matrix.

Where several seeds scored the images, a line is the vertical average of the lines of each seed (so
the area below it is the mean of their areas, which is the metric), and a cell of the confusion
matrix is the mean count. Scores of different seeds are never ranked in one row.

All tables are long, one row per point or cell, ready to be written as CSV. A curve of a class that
is absent (or alone) does not exist and has no rows; :func:`undrawable_classes` says so in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.evaluation.ranking import ThresholdCounts, count_by_threshold
from breakhis_search.evaluation.samples import (
    DrawnLevel,
    Sample,
    confusion_matrix,
    samples_by_seed,
)
from breakhis_search.evaluation.thinning import thin_line

MACRO, MICRO = "macro", "micro"
"""The two summary lines of a figure, beside those of the classes."""

CurveKind = Literal["roc", "pr"]

Floats = npt.NDArray[np.float64]


class Line(NamedTuple):
    """A curve as a polyline with ascending ``x``; vertical steps are two points of equal ``x``.

    Attributes:
        x: float64 [m].
        y: float64 [m].
        threshold: The score at or above which an image is called positive, float64 [m]; NaN where
            a point has none.
    """

    x: Floats
    y: Floats
    threshold: Floats


def roc_points(table: pd.DataFrame, level: DrawnLevel) -> pd.DataFrame:
    """Return the ROC lines of every class against the rest, and their macro and micro lines.

    The macro line is the vertical average of the class lines (T. Fawcett, Pattern Recognition
    Letters 27, 2006, section 7.1), taken at every false-positive rate any of them has, so the area
    below it is the mean of their areas. The micro line pools all (image, class) pairs.

    Returns:
        Columns ``level``, ``class`` (a class name, ``macro`` or ``micro``), ``fpr``, ``tpr``,
        ``threshold`` (infinite at the origin, NaN on averaged lines). At most 500 points a line.
    """
    return _points(table, level, _roc_line, ("fpr", "tpr"))


def pr_points(table: pd.DataFrame, level: DrawnLevel) -> pd.DataFrame:
    """Return the precision-recall lines of every class, and their macro and micro lines.

    Each line has steps, because precision must not be interpolated (J. Davis, M. Goadrich, ICML
    2006): the area below a line is its average precision. Macro and micro as in
    :func:`roc_points`.

    Returns:
        Columns ``level``, ``class``, ``recall``, ``precision``, ``threshold`` (NaN on
        averaged lines). At most 500 points a line.
    """
    return _points(table, level, _pr_line, ("recall", "precision"))


def confusion_counts(table: pd.DataFrame, level: DrawnLevel) -> pd.DataFrame:
    """Return the confusion matrix, one row per cell, true classes first.

    Returns:
        Columns ``level``, ``true``, ``predicted``, ``count`` (int; of several seeds the mean,
        float) and ``rate`` (the share of the true class that got this prediction; NaN where the
        class is absent).
    """
    samples = samples_by_seed(table, level)
    sample, matrices = samples[0], [confusion_matrix(sample) for sample in samples]
    counts = matrices[0] if len(matrices) == 1 else np.mean(matrices, axis=0)
    totals = counts.sum(axis=1, keepdims=True)
    rates = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    names, classes = np.array(sample.class_names, dtype=object), len(sample.class_names)
    return pd.DataFrame(
        {
            "level": level,
            "true": np.repeat(names, classes),
            "predicted": np.tile(names, classes),
            "count": counts.ravel(),
            "rate": rates.ravel(),
        }
    )


def curve_areas(table: pd.DataFrame, level: DrawnLevel, kind: CurveKind) -> dict[str, float]:
    """Return the area below every line of a figure, by its name, before any thinning.

    For ``roc`` that is the AUROC, for ``pr`` the average precision, of each class and of the macro
    and micro lines; of a class without a line there is no entry.
    """
    line_of = _roc_line if kind == "roc" else _pr_line
    lines = _lines_of(samples_by_seed(table, level), line_of)
    return {name: float(np.trapezoid(line.y, line.x)) for name, line in lines.items()}


def undrawable_classes(table: pd.DataFrame, level: DrawnLevel) -> dict[str, str]:
    """Return the classes that have no ROC and precision-recall curve, each with the reason."""
    sample = samples_by_seed(table, level)[0]
    present = sample.names_present
    if len(present) < 2:
        reason = f"every {level} is of the same class, and a curve needs others to compare with"
        return dict.fromkeys(sample.class_names, reason)
    return {
        name: f"no {level} of this class was scored"
        for name in sample.class_names
        if name not in present
    }


def _points(
    table: pd.DataFrame,
    level: DrawnLevel,
    line_of: Callable[[ThresholdCounts], Line],
    axes: tuple[str, str],
) -> pd.DataFrame:
    """Return all lines of one figure as a long table."""
    lines = _lines_of(samples_by_seed(table, level), line_of)
    frames = [_frame(level, name, line, axes) for name, line in lines.items()]
    empty = pd.DataFrame(columns=["level", "class", *axes, "threshold"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def _lines_of(
    samples: Sequence[Sample], line_of: Callable[[ThresholdCounts], Line]
) -> dict[str, Line]:
    """Return the lines by name: those of one seed, or the vertical averages of several."""
    by_seed = [_lines_of_seed(sample, line_of) for sample in samples]
    if len(by_seed) == 1:
        return by_seed[0]
    return {name: average_vertically([lines[name] for lines in by_seed]) for name in by_seed[0]}


def _lines_of_seed(sample: Sample, line_of: Callable[[ThresholdCounts], Line]) -> dict[str, Line]:
    is_true = np.eye(len(sample.class_names), dtype=bool)[sample.y_true]
    lines = {}
    for index, name in enumerate(sample.class_names):
        counts = count_by_threshold(is_true[:, index], sample.probabilities[:, index])
        if counts.has_both:
            lines[name] = line_of(counts)
    if lines:
        pooled = count_by_threshold(is_true.ravel(), sample.probabilities.ravel())
        lines |= {MACRO: average_vertically(list(lines.values())), MICRO: line_of(pooled)}
    return lines


def _frame(level: DrawnLevel, name: str, line: Line, axes: tuple[str, str]) -> pd.DataFrame:
    kept = thin_line(line.x, line.y)
    return pd.DataFrame(
        {
            "level": level,
            "class": name,
            axes[0]: line.x[kept],
            axes[1]: line.y[kept],
            "threshold": line.threshold[kept],
        }
    )


def _roc_line(counts: ThresholdCounts) -> Line:
    """Return the ROC line from (0, 0) to (1, 1)."""
    return Line(
        np.append(0.0, counts.false_positives / counts.false_positives[-1]),
        np.append(0.0, counts.true_positives / counts.true_positives[-1]),
        np.append(np.inf, counts.thresholds),
    )


def _pr_line(counts: ThresholdCounts) -> Line:
    """Return the stepped precision-recall line: a threshold's precision holds from the last recall.

    Thresholds that find no further positive are left out: they add nothing to the area.
    """
    found = np.diff(counts.true_positives, prepend=0.0) > 0
    hits, misses = counts.true_positives[found], counts.false_positives[found]
    recall = hits / hits[-1]
    x = np.column_stack([np.append(0.0, recall[:-1]), recall]).ravel()
    return Line(x, np.repeat(hits / (hits + misses), 2), np.repeat(counts.thresholds[found], 2))


def average_vertically(lines: Sequence[Line]) -> Line:
    """Return the mean of several lines over the same range of ``x``, steps kept as steps.

    >>> nan = np.full(3, np.nan)
    >>> step = Line(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), nan)
    >>> slope = Line(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0]), nan)
    >>> mean = average_vertically([step, slope])
    >>> mean.x.tolist(), mean.y.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.75, 0.75, 1.0, 1.0])
    """
    grid = np.unique(np.concatenate([line.x for line in lines]))
    sides = np.mean([_sides_of(line, grid) for line in lines], axis=0)
    return Line(np.repeat(grid, 2), sides.ravel(), np.full(2 * len(grid), np.nan))


def _sides_of(line: Line, grid: Floats) -> Floats:
    """Return ``y`` just before and just after a possible step at every grid point, [g, 2]."""
    knots, first = np.unique(line.x, return_index=True)
    entry, exit_ = line.y[first], line.y[np.append(first[1:], len(line.x)) - 1]
    after = np.searchsorted(knots, grid, side="right")
    left = after - 1
    right = np.minimum(after, len(knots) - 1)
    is_knot = knots[left] == grid
    width = np.where(right > left, knots[right] - knots[left], 1.0)
    share = (grid - knots[left]) / width
    between = exit_[left] + share * (entry[right] - exit_[left])
    return np.column_stack([np.where(is_knot, entry[left], between), between])
