"""The ends of intervals: published examples, closed forms, and scipy where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from breakhis_search.evaluation.interval_bounds import (
    expanded_level,
    expanded_percentile_bounds,
    logit_bounds,
    wilson_bounds,
    wilson_mean_bounds,
)
from breakhis_search.evaluation.resampled_metrics import draw_weights


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17, 857-872 (1998): the examples of his table.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_of_newcombes_examples(right, n, low, high) -> None:
    assert wilson_bounds(right / n, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [5, 13, 57])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_scipy_for_whole_patients(n, level) -> None:
    for right in range(n + 1):
        expected = stats.binomtest(right, n).proportion_ci(level, method="wilson")
        assert wilson_bounds(right / n, n, level) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_ends_solve_the_equation_of_the_score_test() -> None:
    # The ends are the shares p at which (share - p)^2 = z^2 p (1 - p) / n.
    for end in wilson_bounds(0.7, 11, 0.95):
        z = (0.7 - end) / np.sqrt(end * (1 - end) / 11)
        assert abs(z) == pytest.approx(stats.norm.ppf(0.975))


def test_mean_of_shares_gives_newcombes_interval_of_a_difference() -> None:
    # p1 - p2 is twice the mean of p1 and 1 - p2, minus 1. Newcombe, Statistics in Medicine 17,
    # 873-890 (1998), method 10 for 56/70 against 48/80: 0.0524 to 0.3339.
    low, high = wilson_mean_bounds([(56 / 70, 70), (32 / 80, 80)], 0.95)
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_mean_of_one_share_is_that_share() -> None:
    assert wilson_mean_bounds([(0.8, 10)], 0.95) == pytest.approx(wilson_bounds(0.8, 10, 0.95))


def test_mean_of_extreme_shares_stays_within_bounds() -> None:
    assert wilson_mean_bounds([(1.0, 5), (1.0, 5)], 0.95)[1] == 1.0
    assert wilson_mean_bounds([(0.0, 5), (0.0, 5)], 0.95)[0] == 0.0


def test_logit_interval_of_a_case_by_hand() -> None:
    # Draws 0.75 and 0.85: deviation 0.0707, times sqrt(5/4) = 0.0791. On the logit scale, whose
    # slope at 0.8 is 1 / 0.16, it is 0.494; t(4) at 97.5 % is 2.776, so the reach is 1.372 around
    # logit(0.8) = 1.386: from 0.014 to 2.759.
    low, high = logit_bounds(0.8, np.array([0.75, 0.85]), 5, 0.95)
    assert (low, high) == pytest.approx(
        (1 / (1 + np.exp(-0.014)), 1 / (1 + np.exp(-2.759))), abs=1e-3
    )


def test_logit_interval_of_a_correlation_may_be_negative() -> None:
    low, high = logit_bounds(0.1, np.array([-0.1, 0.3]), 10, 0.95, least=-1.0)
    assert -1 < low < 0
    assert 0.1 < high < 1


@pytest.mark.parametrize("n", [5, 8, 20, 200])
def test_expanded_level_turns_normal_quantiles_into_those_of_a_t_interval(n) -> None:
    # Percentiles of a mean's bootstrap are mean +- z sd sqrt((n - 1) / n) / sqrt n with the usual
    # sd; at the expanded level this is mean +- t sd / sqrt n.
    z = stats.norm.ppf((1 + expanded_level(n, 0.95)) / 2)
    assert z * np.sqrt((n - 1) / n) == pytest.approx(stats.t.ppf(0.975, n - 1))


def test_bootstrap_of_a_mean_agrees_with_the_closed_form() -> None:
    # Student's t interval of a mean is exact for normal values: the bootstrap has to come near it.
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.05, 40)
    weights = draw_weights(np.zeros(40, dtype=np.int64), 40_000, rng)
    draws = weights @ values / 40
    expected = stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / np.sqrt(40))
    assert expanded_percentile_bounds(draws, 40, 0.95) == pytest.approx(expected, abs=5e-4)
    assert draws.std() == pytest.approx(
        values.std() / np.sqrt(40), rel=0.02
    )  # (n - 1) / n included


def test_bootstrap_of_a_mean_covers_it_with_five_patients() -> None:
    rng = np.random.default_rng(0)
    weights = draw_weights(np.zeros(5, dtype=np.int64), 1000, rng)
    covered = np.zeros(2)
    for _ in range(600):
        draws = weights @ rng.normal(0.0, 1.0, 5) / 5
        plain = np.quantile(draws, [0.025, 0.975])
        for column, (low, high) in enumerate((plain, expanded_percentile_bounds(draws, 5, 0.95))):
            covered[column] += low <= 0 <= high
    plain_rate, rate = covered / 600
    # No percentile reaches beyond the five values, so even the expanded one falls short of 0.95.
    assert plain_rate < 0.84
    assert rate > 0.86
