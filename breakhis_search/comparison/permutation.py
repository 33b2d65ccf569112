"""The patient-swap test: would the difference of two models survive if their names were shuffled?

If two models are equally good, nothing is lost by exchanging, for any patient, what the one and
the other said of that patient's images. The test does so for random sets of patients and asks how
often the difference of the scores comes out as large as the real one. Patients are swapped whole,
with all images and seeds, because the images of one patient are not independent.

For AUROC this is the paired test of A. I. Bandos, H. E. Rockette, D. Gur, "A permutation test
sensitive to differences in areas for comparing ROC curves from a paired design", Stat Med 24
(2005), with their rank transform (each model's scores become ranks, so that a swap does not mix two
scales), and with patients in place of single images.

Both objectives are sums over patients, which makes 10,000 swaps one matrix product. Write sigma_i
= -1 for swapped patients, +1 for others, and U^XY_ij for the wins of positives of patient i scored
by X over negatives of patient j scored by Y. Then the terms in sigma_i sigma_j cancel between the
two mixed models, and the difference of their AUROC is sum_i sigma_i v_i with

    v_i = sum_j (U^AA - U^BB + U^AB - U^BA)_ij + (U^AA - U^BB + U^BA - U^AB)_ji, over 2 n_pos n_neg:

how much better A ranks the images of patient i than B does among those of *both* models.

Ranks bring two models to one scale, and that has a price: aligning them takes out of the v_i what
the patients themselves move the scale by, so that swaps vary too little, in variance by (m - 1) / m
with m patients in the scarcer class. Patients with many images count for more than one with few, so
m is their effective number (:func:`small_sample_factor`); for the 13 benign development patients of
BreaKHis it is 8.2. Without the factor 6.6 % of equal models were called better at p <= 0.05, with
it 5 % (``benchmarks/gate_simulation.py``). Balanced accuracy needs no ranks and no factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.comparison.alignment import Aligned, align
from breakhis_search.evaluation.metrics import Objective
from breakhis_search.evaluation.pairwise import FloatArray, IntArray

TOLERANCE = 1e-12
"""Differences closer than this are equal: sums of the same numbers in another order."""


@dataclass(frozen=True)
class SwapTest:
    """The outcome of a patient-swap test of A against B.

    Attributes:
        difference: Score of A minus score of B, in [-1, 1].
        p_greater: Chance of such a lead of A, or a larger one, if the models were equal.
        p_two_sided: The same for a lead of either.
        n_patients: Accessions that were swapped.
        permutations: How many sets of patients were swapped.
        exact: Whether these were all the sets there are, so that p does not depend on chance.
    """

    difference: float
    p_greater: float
    p_two_sided: float
    n_patients: int
    permutations: int
    exact: bool


class SwapTails(NamedTuple):
    """Two p-values, and how they were found."""

    p_greater: float
    p_two_sided: float
    permutations: int
    exact: bool


def patient_swap_test(
    a: pd.DataFrame,
    b: pd.DataFrame,
    objective: Objective,
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> SwapTest:
    """Return whether model A scores higher than model B by more than chance among patients.

    The statistic is the difference of the pooled objective, a mean over seeds. Seed i of A meets
    seed i of B; where one has fewer seeds, they come round again until both are through.

    Args:
        a: Predictions table of A, with any number of seeds.
        b: Predictions table of B for the same images.
        objective: ``auroc`` (malignant as positive; with more than two classes the mean over the
            classes, each against the rest) or ``balanced_accuracy``.
        permutations: Sets of patients to swap, at least 1; all of them where there are no more.
        seed: Of the random sets.

    Raises:
        ComparisonError: The tables are not of the same images.
    """
    aligned = align([a, b])
    if objective == "auroc":
        contributions, swapped = _ranking_contributions(aligned)
    else:
        contributions = swapped = _recall_contributions(aligned)
    rng = np.random.default_rng(seed)
    tails = swap_tails(contributions, permutations=permutations, rng=rng, swapped=swapped)
    return SwapTest(
        difference=float(contributions.sum()),
        p_greater=tails.p_greater,
        p_two_sided=tails.p_two_sided,
        n_patients=len(contributions),
        permutations=tails.permutations,
        exact=tails.exact,
    )


def swap_tails(
    contributions: FloatArray,
    *,
    permutations: int,
    rng: np.random.Generator,
    swapped: FloatArray | None = None,
) -> SwapTails:
    """Return how extreme a sum is among those with some of its terms turned round.

    With ``permutations`` random sets the real one is counted among them, p = (1 + hits) / (1 + B),
    so that p is never 0 and never too small (B. Phipson, G. K. Smyth, Stat Appl Genet Mol Biol 9,
    2010). Where there are no more than ``permutations`` sets in all, every one is tried.

    Args:
        contributions: What each patient adds to the difference, float64 [P].
        permutations: Sets to try.
        rng: Draws them.
        swapped: What each patient adds to the sums it is compared with, float64 [P], where a factor
            makes up for few patients; by default ``contributions``.

    >>> swap_tails(np.array([0.3, 0.2, 0.1]), permutations=100, rng=np.random.default_rng(0))
    SwapTails(p_greater=0.125, p_two_sided=0.25, permutations=8, exact=True)
    """
    observed = float(contributions.sum())
    exact = len(contributions) <= math.log2(permutations)
    signs = (
        _all_signs(len(contributions)) if exact else _random_signs(contributions, permutations, rng)
    )
    sums = signs @ (contributions if swapped is None else swapped)
    greater = int((sums >= observed - TOLERANCE).sum())
    farther = int((np.abs(sums) >= abs(observed) - TOLERANCE).sum())
    if exact:
        return SwapTails(greater / len(signs), farther / len(signs), len(signs), exact)
    total = permutations + 1
    return SwapTails((greater + 1) / total, (farther + 1) / total, permutations, exact)


def auroc_contributions(
    is_positive: npt.NDArray[np.bool_],
    a: FloatArray,
    b: FloatArray,
    patient: IntArray,
    n_patients: int,
) -> FloatArray:
    """Return what each patient adds to AUROC of A minus AUROC of B (the v_i of the module).

    Args:
        is_positive: bool [n], with both classes.
        a: Scores by A, higher means more positive, float [n]; only their order counts.
        b: Scores by B, float [n].
        patient: Index of the patient of each image, int [n].
        n_patients: P.

    Returns:
        float64 [P].

    >>> labels, patients = np.array([True, True, False]), np.array([0, 1, 2])
    >>> a, b = np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.1, 0.8])
    >>> auroc_contributions(labels, a, b, patients, 3).tolist()
    [0.0, 0.25, 0.25]
    """
    rank_a, rank_b = _doubled_ranks(a), _doubled_ranks(b)
    positives = np.concatenate([rank_a[is_positive], rank_b[is_positive]])
    negatives = np.concatenate([rank_a[~is_positive], rank_b[~is_positive]])
    gain = np.where(
        is_positive,
        _count_below(negatives, rank_a) - _count_below(negatives, rank_b),
        _count_below(positives, rank_b) - _count_below(positives, rank_a),
    )
    pairs = 2.0 * float(is_positive.sum()) * float((~is_positive).sum())
    return np.asarray(np.bincount(patient, weights=gain, minlength=n_patients) / pairs)


def small_sample_factor(
    is_positive: npt.NDArray[np.bool_], patient: IntArray, n_patients: int
) -> float:
    """Return by what swaps of ranks are to be stretched for few patients, in (1, sqrt 2].

    It is sqrt(m / (m - 1)), with m the effective number of patients of the scarcer side, (sum of
    images)^2 / (sum of squares of images): L. Kish, J. Off. Stat. 8, 1992. That tests with few or
    unequal groups reject too often, and that the effective number tells how much, is known from
    J. G. MacKinnon, M. D. Webb, J. Appl. Econom. 32(2), 2017. Of a single patient nothing can be
    told; one is counted as two.

    Args:
        is_positive: bool [n].
        patient: Index of the patient of each image, int [n].
        n_patients: P.

    >>> labels, patients = np.array([True, False, True]), np.array([0, 1, 2])
    >>> round(small_sample_factor(labels, patients, 3), 4)
    1.4142
    >>> even = np.arange(20)
    >>> round(small_sample_factor(even < 10, even, 20) ** 2, 4)  # 10 / 9
    1.1111
    """
    sides = (
        np.bincount(patient[side], minlength=n_patients) for side in (is_positive, ~is_positive)
    )
    effective = [float(images.sum() ** 2 / (images**2).sum()) for images in sides]
    fewest = max(2.0, min(effective))
    return math.sqrt(fewest / (fewest - 1))


def _ranking_contributions(aligned: Aligned) -> tuple[FloatArray, FloatArray]:
    """Return the contributions to AUROC, and those of swapped sets, each float64 [P].

    Both are means over classes and pairs of seeds.
    """
    classes = aligned.probabilities[0].shape[2]
    ranked = [1] if classes == 2 else np.unique(aligned.y_true).tolist()
    by_class = np.stack([_contributions_of_class(aligned, index) for index in ranked])
    factors = [
        small_sample_factor(aligned.y_true == index, aligned.patient, len(aligned.accessions))
        for index in ranked
    ]
    stretched = np.array(factors)[:, None] * by_class
    return np.asarray(by_class.mean(axis=0)), np.asarray(stretched.mean(axis=0))


def _contributions_of_class(aligned: Aligned, index: int) -> FloatArray:
    """Return the contributions to the AUROC of one class against the rest, mean of the seeds."""
    a, b = aligned.probabilities
    parts = [
        auroc_contributions(
            aligned.y_true == index,
            a[step % len(a), :, index],
            b[step % len(b), :, index],
            aligned.patient,
            len(aligned.accessions),
        )
        for step in range(math.lcm(len(a), len(b)))
    ]
    return np.asarray(np.mean(parts, axis=0))


def _recall_contributions(aligned: Aligned) -> FloatArray:
    """Return the contributions to balanced accuracy, float64 [P]."""
    a, b = (_share_right(p, aligned.y_true) for p in aligned.probabilities)
    _, inverse, sizes = np.unique(aligned.y_true, return_inverse=True, return_counts=True)
    gain = (a - b) / (sizes[inverse] * len(sizes))
    sums = np.bincount(aligned.patient, weights=gain, minlength=len(aligned.accessions))
    return np.asarray(sums, dtype=np.float64)


def _share_right(probabilities: FloatArray, y_true: IntArray) -> FloatArray:
    """Return the share of the seeds that are right, float64 [n]."""
    return np.asarray((probabilities.argmax(axis=2) == y_true).mean(axis=0))


def _doubled_ranks(scores: FloatArray) -> IntArray:
    """Return twice the rank of each score, int64 [n], in [2, 2n]: ties have half ranks."""
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    # A group of equal scores has the ranks from last - size + 1 to last.
    last = np.cumsum(sizes)
    return np.asarray((2 * last - sizes + 1)[group], dtype=np.int64)


def _count_below(ranks: IntArray, of: IntArray) -> FloatArray:
    """Return how many ranks lie below each entry of ``of``, equal ones counting one half."""
    counts = np.bincount(ranks, minlength=int(of.max()) + 1)
    return np.asarray((np.cumsum(counts) - counts / 2)[of], dtype=np.float64)


def _all_signs(count: int) -> FloatArray:
    """Return every choice of signs, float64 [2^count, count]."""
    bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def _random_signs(
    contributions: FloatArray, permutations: int, rng: np.random.Generator
) -> FloatArray:
    """Return random signs, float64 [permutations, P]."""
    flips = rng.integers(0, 2, (permutations, len(contributions)))
    return np.asarray(2.0 * flips - 1.0, dtype=np.float64)
