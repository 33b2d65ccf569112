"""AUROC by pairs of patients: what resampling or swapping whole patients needs of a ranking.

The area under the ROC curve is the share of (positive, negative) image pairs in which the positive
one ranks higher (Mann-Whitney). Summed by patient pair this is a matrix U [P, P], and the AUROC of
*any* weighting w of patients is ``w U w / (w p)(w q)`` with p and q the positives and negatives of
each patient: a bootstrap of 2,000 resamples is one matrix product, without ranking anything again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairwiseWins:
    """A ranking, by pairs of patients.

    Attributes:
        wins: float64 [P, P]; entry (i, j) counts the pairs of a positive of patient i and a
            negative of patient j that are ranked right, ties counting one half.
        positives: Positives of each patient, float64 [P].
        negatives: Negatives of each patient, float64 [P].
    """

    wins: FloatArray
    positives: FloatArray
    negatives: FloatArray

    def auroc(self, weights: FloatArray) -> FloatArray:
        """Return the AUROC of every weighting of the patients.

        Args:
            weights: How often each patient counts, float [B, P]; ones give the plain AUROC.

        Returns:
            float64 [B]; NaN where a weighting leaves no positive or no negative.
        """
        pairs = (weights @ self.positives) * (weights @ self.negatives)
        won = np.einsum("bi,bi->b", weights @ self.wins, weights)
        nothing: FloatArray = np.full(len(weights), np.nan)
        return np.asarray(np.divide(won, pairs, out=nothing, where=pairs > 0))


def pairwise_wins(
    is_positive: npt.NDArray[np.bool_],
    scores: FloatArray,
    patient: IntArray,
    n_patients: int,
    *,
    negative_scores: FloatArray | None = None,
) -> PairwiseWins:
    """Return the wins of positives over negatives by pair of patients.

    Args:
        is_positive: bool [n].
        scores: Higher means more positive, float [n].
        patient: Index of the patient of each image, int [n], in [0, ``n_patients``).
        n_patients: P.
        negative_scores: Scores of the negatives, float [n], where another model ranks them than
            the positives; by default ``scores``.

    >>> labels, patients = np.array([True, False, True]), np.array([0, 1, 1])
    >>> pairwise_wins(labels, np.array([0.9, 0.4, 0.4]), patients, 2).wins.tolist()
    [[0.0, 1.0], [0.0, 0.5]]
    """
    rivals = scores if negative_scores is None else negative_scores
    positive_rows, negative_rows = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    order = negative_rows[np.argsort(rivals[negative_rows], kind="stable")]
    below = np.zeros((len(order) + 1, n_patients))  # negatives of each patient among the lowest r
    np.cumsum(np.eye(n_patients)[patient[order]], axis=0, out=below[1:])
    ranked = rivals[order]
    lower = np.searchsorted(ranked, scores[positive_rows], side="left")
    upper = np.searchsorted(ranked, scores[positive_rows], side="right")
    beaten = (below[lower] + below[upper]) / 2
    wins = np.zeros((n_patients, n_patients))
    np.add.at(wins, patient[positive_rows], beaten)
    counts = [np.bincount(patient[rows], minlength=n_patients) for rows in (positive_rows, order)]
    return PairwiseWins(wins, counts[0].astype(np.float64), counts[1].astype(np.float64))
