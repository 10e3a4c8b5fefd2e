from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.clients.load import LatencyHistogram

SHARES = [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0]


def filled(durations) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.record(float(duration))
    return histogram


def assert_agrees_with_numpy(durations) -> None:
    """Never below the sorted values' quantile, and above it by the precision at most."""
    histogram = filled(durations)
    for share in SHARES:
        exact = np.quantile(durations, share, method="inverted_cdf")
        assert exact - 1e-9 <= histogram.quantile(share)
        assert histogram.quantile(share) <= exact * (1 + LatencyHistogram.PRECISION) + 1e-9


@pytest.mark.parametrize("scale_s", [1e-7, 1e-4, 0.01, 1.0, 5000.0])
def test_quantiles_are_those_of_the_sorted_durations(scale_s):
    assert_agrees_with_numpy(scale_s * np.random.default_rng(0).lognormal(0.0, 2.0, 5000))


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
def test_quantiles_are_right_for_any_durations(durations):
    assert_agrees_with_numpy(durations)


def test_mean_and_longest_are_exact():
    histogram = filled([0.001, 0.002, 1.000000003])
    assert histogram.max_s == 1.000000003
    assert histogram.mean_s == pytest.approx(1.003000003 / 3, abs=1e-9)


def test_a_bucket_ends_at_the_longest_duration():
    assert filled([3.0]).quantile(0.5) == 3.0


def test_of_nothing_there_is_no_figure():
    histogram = LatencyHistogram()
    assert len(histogram) == 0
    assert histogram.quantile(0.5) is None
    assert histogram.mean_s is None
    assert histogram.max_s is None
    assert histogram.cumulative() == []


def test_two_histograms_add_up_to_that_of_all_durations():
    durations = np.random.default_rng(1).exponential(0.01, 1000)
    one, other = filled(durations[:300]), filled(durations[300:])
    one.add(other)
    whole = filled(durations)
    assert len(one) == 1000
    assert one.cumulative() == whole.cumulative()
    assert (one.mean_s, one.max_s) == (whole.mean_s, whole.max_s)


def test_memory_does_not_grow_with_the_number_of_durations():
    durations = np.random.default_rng(2).uniform(0.001, 0.002, 20_000)
    assert len(filled(durations).cumulative()) <= 1100


def test_the_shares_rise_to_one():
    durations = np.random.default_rng(3).exponential(1, 500)
    ends, shares = zip(*filled(durations).cumulative(), strict=True)
    assert list(ends) == sorted(set(ends))
    assert list(shares) == sorted(set(shares))
    assert shares[-1] == 1.0


@pytest.mark.parametrize("wrong", [-1e-9, float("nan"), float("inf")])
def test_a_duration_is_a_finite_number_from_zero_on(wrong):
    with pytest.raises(ValueError, match="duration_s: expected a finite number"):
        LatencyHistogram().record(wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_a_quantile_is_a_share(wrong):
    with pytest.raises(ValueError, match="share: expected 0 to 1"):
        LatencyHistogram().quantile(wrong)
