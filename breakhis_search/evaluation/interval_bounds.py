"""The ends of an interval, from a share of patients or from the draws of a bootstrap.

:mod:`.intervals` says which metric has which. All bootstrap formulas make up for few patients: a
bootstrap's variance is (n - 1) / n of what it should be, and a spread known from n patients asks
for quantiles of Student's t. ``scipy.special`` has them, too, and loads much faster than
``scipy.stats``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from breakhis_search.evaluation.pairwise import FloatArray


def wilson_bounds(share: float, n: int, level: float) -> tuple[float, float]:
    """Return the ends of Wilson's score interval of a share of n patients.

    Written out, because a mean over seeds need not be a whole number of patients, which
    ``scipy.stats.binomtest`` asks for; for whole numbers both agree.

    >>> [round(end, 4) for end in wilson_bounds(0.9, 10, 0.95)]
    [0.5958, 0.9821]
    """
    z = float(special.ndtri((1 + level) / 2))
    spread = z * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    low, high = ((share + z**2 / (2 * n) + side * spread) / (1 + z**2 / n) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def wilson_mean_bounds(shares: Sequence[tuple[float, int]], level: float) -> tuple[float, float]:
    """Return the ends of an interval of the mean of independent shares, each (share, patients).

    The distances of the shares from the ends of their own Wilson intervals are squared and added.

    >>> [round(end, 4) for end in wilson_mean_bounds([(0.9, 10), (0.9, 10)], 0.95)]
    [0.6849, 0.9581]
    """
    mean = float(np.mean([share for share, _ in shares]))
    ends = [wilson_bounds(share, n, level) for share, n in shares]
    below = [share - low for (share, _), (low, _) in zip(shares, ends, strict=True)]
    above = [high - share for (share, _), (_, high) in zip(shares, ends, strict=True)]
    low, high = (float(np.linalg.norm(distance)) / len(shares) for distance in (below, above))
    return mean - low, mean + high


def logit_bounds(
    value: float, draws: FloatArray, n: int, level: float, *, least: float = 0.0
) -> tuple[float, float]:
    """Return the ends of a t interval on the logit scale, from the draws' standard deviation.

    Args:
        value: The metric, strictly between ``least`` and 1.
        draws: The metric of every resample, float [B], finite.
        n: Patients of the smallest class, at least 2.
        level: The share of the truths to cover.
        least: The lowest value that the metric can have; the highest is 1.

    >>> draws = np.array([0.75, 0.85])
    >>> [round(end, 3) for end in logit_bounds(0.8, draws, 50, 0.95)]
    [0.62, 0.907]
    """
    width = 1 - least
    share = (value - least) / width
    deviation = float(draws.std(ddof=1)) / width * float(np.sqrt(n / (n - 1)))
    t = float(special.stdtrit(n - 1, (1 + level) / 2))
    # The slope of the logit carries the deviation over to its scale.
    reach = t * deviation / (share * (1 - share))
    low, high = special.expit(special.logit(share) + np.array([-reach, reach]))
    return least + width * float(low), least + width * float(high)


def expanded_percentile_bounds(draws: FloatArray, n: int, level: float) -> tuple[float, float]:
    """Return quantiles of the draws, further out than ``level`` by as much as few patients ask for.

    Args:
        draws: The metric of every resample, float [B], finite.
        n: Patients of the smallest class, at least 2.
        level: The share of the truths to cover.
    """
    wider = expanded_level(n, level)
    low, high = np.quantile(draws, [(1 - wider) / 2, (1 + wider) / 2])
    return float(low), float(high)


def expanded_level(n: int, level: float) -> float:
    """Return the level at which percentiles are taken so that ``level`` is covered.

    It makes up for the factor (n - 1) / n in a bootstrap's variance, and for the quantiles of
    Student's t being further out than those of the normal distribution.

    >>> round(expanded_level(5, 0.95), 4), round(expanded_level(1000, 0.95), 4)
    (0.9981, 0.9504)
    """
    tail = np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - level) / 2)
    return 1 - 2 * float(special.ndtr(tail))
