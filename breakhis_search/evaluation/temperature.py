"""The one temperature that calibrates logits, by scikit-learn's temperature scaling."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

FloatArray = npt.NDArray[np.float64]

TEMPERATURE_RANGE: tuple[float, float] = (0.1, 10.0)
"""Lowest and highest temperature that is believed.

Where every row is right, likelihood asks for the temperature 0, and where a model ranks no better
than chance, for infinity: neither is a finding about the next patient. The likelihood has a single
peak over the temperature, so that the nearer end of the range is the best value inside it.
"""


class _GivenScores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A fitted classifier whose decision function is its input."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        return np.arange(self.n_classes)

    def fit(self, scores: FloatArray, y: Any) -> _GivenScores:
        """Return itself: there is nothing to learn."""
        del scores, y
        return self

    def decision_function(self, scores: FloatArray) -> FloatArray:
        """Return [n] for two classes (positive: the second one), else [n, K]."""
        return scores[:, 0] if self.n_classes == 2 else scores


def fit_temperature(
    logits: npt.ArrayLike, y_true: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Return the temperature T in :data:`TEMPERATURE_RANGE` that softmax(logits / T) fits best.

    Best is the smallest weighted negative log-likelihood (C. Guo, G. Pleiss, Y. Sun, K. Weinberger,
    ICML 2017, section 4.2).

    Args:
        logits: float [n, K].
        y_true: Class indices, int [n]; a class may be absent.
        weights: How much each row counts, float [n], positive; by default all the same.

    >>> round(fit_temperature([[4.0, 0]] * 4, [0, 0, 0, 1]), 3)  # 4 / ln 3: then p = 3 of 4
    3.641
    """
    scores = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(y_true, dtype=np.int64)
    n, n_classes = scores.shape
    # Rows of a sum of 0 can never be mistaken for probabilities, whose logarithm would be taken.
    scores = scores - scores.mean(axis=1, keepdims=True)
    if n_classes == 2:
        scores = scores[:, 1:]  # scikit-learn takes a margin x for the logits (-x, x)
    everything = np.arange(n)
    calibrated = CalibratedClassifierCV(
        FrozenEstimator(_GivenScores(n_classes)),
        method="temperature",
        cv=[(everything, everything)],  # nothing is trained, so nothing is kept apart here
        ensemble=True,  # its other way takes no frozen scores with an absent class
    )
    with warnings.catch_warnings():
        # The weights are for the calibration alone, which is what it warns of.
        warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear", UserWarning)
        calibrated.fit(scores, labels, sample_weight=weights)
    [only] = calibrated.calibrated_classifiers_
    return float(np.clip(1.0 / only.calibrators[0].beta_, *TEMPERATURE_RANGE))
