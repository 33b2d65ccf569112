"""How far probabilities are from what happens: likelihood, Brier score, calibration errors.

All take ``y_true`` (class indices, int [n]) and ``probabilities`` (float [n, K], rows summing to 1)
with n of at least 1. Calibration errors group rows into bins of equal mass, not of equal width:
most probabilities of a network lie near 0 and 1, and bins of equal width hold a handful of rows in
between, which is noise (J. Nixon, M. Dusenberry, L. Zhang, G. Jerfel, D. Tran, "Measuring
Calibration in Deep Learning", CVPR workshops 2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_BINS = 15
"""As in C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""

MIN_ROWS_PER_BIN = 10
"""Fewer bins are made before one gets smaller: a share of fewer rows says next to nothing."""


def nll(y_true: IntArray, probabilities: FloatArray) -> float:
    """Return the mean of -ln p(true class), in nats; infinite where that is the probability 0.

    >>> round(nll(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]])), 4)  # ln 2, ln 4
    1.0397
    """
    chosen = probabilities[np.arange(len(y_true)), y_true]
    with np.errstate(divide="ignore"):
        return float(-np.log(chosen).mean())


def brier(y_true: IntArray, probabilities: FloatArray) -> float:
    """Return the Brier score: the mean over rows of the squared error of the probabilities.

    Summed over the classes, in [0, 2], as its author defined it (G. Brier, Monthly Weather Review
    78, 1950); of two classes, whose errors are equal, that of the second one alone, in [0, 1]: the
    binary convention of most clinical papers, of scikit-learn and of :mod:`.metrics`.

    >>> brier(np.array([0, 1]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    0.125
    >>> brier(np.array([0, 1]), np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    0.25
    """
    n_classes = probabilities.shape[1]
    total = ((probabilities - np.eye(n_classes)[y_true]) ** 2).sum(axis=1).mean()
    return float(total / 2 if n_classes == 2 else total)


def ece(y_true: IntArray, probabilities: FloatArray) -> float:
    """Return the expected calibration error of the most probable class, in [0, 1].

    It does not see a shifted prior where too much confidence in one class cancels too little in
    another; :func:`classwise_ece` does.

    >>> ece(np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]])).__round__(3)  # 0.5 and 0.8
    0.3
    """
    right = probabilities.argmax(axis=1) == y_true
    return calibration_error(probabilities.max(axis=1), right)


def classwise_ece(y_true: IntArray, probabilities: FloatArray) -> float:
    """Return the mean over all K classes of the calibration error of the class's probability.

    The "adaptive calibration error" of Nixon et al. 2019; A. Kumar, P. Liang, T. Ma, "Verified
    Uncertainty Calibration", NeurIPS 2019, call it marginal (and square the differences). A class
    that does not occur counts too: its probabilities should be 0.

    >>> classwise_ece(np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]])).__round__(3)
    0.3
    """
    classes = range(probabilities.shape[1])
    errors = [calibration_error(probabilities[:, index], y_true == index) for index in classes]
    return float(np.mean(errors))


def calibration_error(claimed: FloatArray, happened: npt.NDArray[np.bool_]) -> float:
    """Return by how much a claimed probability is off on average, in [0, 1].

    The mean over bins of equal mass, by their sizes, of |share that happened - mean claim|.

    Args:
        claimed: Probability of an event, float [n].
        happened: Whether it came, bool [n].
    """
    bins = equal_mass_bins(claimed, bin_count(len(claimed)))
    return float(np.abs(np.bincount(bins, weights=happened - claimed)).sum() / len(claimed))


def error_by_chance(claimed: FloatArray, *, draws: int = 500, seed: int = 0) -> float:
    """Return the mean :func:`calibration_error` that these claims would show if all were true.

    It is above 0 because a bin of few rows is never at its expectation: an error of this size is
    what luck alone makes. Events are redrawn with the claimed probabilities, independently (J.
    Bröcker, L. Smith, Weather and Forecasting 22, 2007), so rows must not be images of one patient.

    >>> few, many = np.full(20, 0.5), np.full(20_000, 0.5)
    >>> error_by_chance(few) > 0.05, error_by_chance(many, draws=20) < 0.01
    (True, True)
    """
    rng = np.random.default_rng(seed)
    bins = equal_mass_bins(claimed, bin_count(len(claimed)))
    happened = rng.random((draws, len(claimed))) < claimed
    gaps = (happened - claimed) @ np.eye(int(bins.max()) + 1)[bins]
    return float(np.abs(gaps).sum(axis=1).mean() / len(claimed))


def bin_count(rows: int) -> int:
    """Return how many bins so many rows are given: at most 15, of ten rows or more.

    >>> bin_count(7909), bin_count(57), bin_count(3)
    (15, 5, 1)
    """
    return max(1, min(MAX_BINS, rows // MIN_ROWS_PER_BIN))


def equal_mass_bins(values: FloatArray, bins: int) -> IntArray:
    """Return the bin of every value, int [n], from 0 upwards in order of the values.

    Equal values share a bin, so that the order of the rows changes nothing; bins are then uneven,
    or fewer than asked for.

    >>> equal_mass_bins(np.array([0.4, 0.1, 0.2, 0.3]), 2).tolist()
    [1, 0, 0, 1]
    >>> equal_mass_bins(np.array([0.1, 0.5, 0.5, 0.5]), 2).tolist()
    [0, 1, 1, 1]
    """
    starts = np.sort(values)[np.arange(1, bins) * len(values) // bins]
    _, bin_of_row = np.unique(
        np.searchsorted(np.unique(starts), values, side="right"), return_inverse=True
    )
    return np.asarray(bin_of_row, dtype=np.int64)
