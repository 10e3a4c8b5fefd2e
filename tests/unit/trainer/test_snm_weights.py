from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from motherlode.core.errors import InvalidInputError
from motherlode.trainer.losses import snm_weights

REPLACEMENT = pytest.mark.parametrize("replacement", [False, True], ids=["without", "with"])
SIZES = [(1, 1, 1), (2, 1, 1), (30, 8, 3), (30, 8, 1), (30, 8, 7), (30, 29, 5), (40, 20, 19)]


def by_counting(num_labels: int, num_draws: int, keep: int) -> list[float]:
    """sum_{j < k} C(i - 1, j) C(L - i, B - 1 - j) / C(L, B), in whole numbers."""
    return [
        float(
            Fraction(
                sum(comb(i - 1, j) * comb(num_labels - i, num_draws - 1 - j) for j in range(keep)),
                comb(num_labels, num_draws),
            )
        )
        for i in range(1, num_labels + 1)
    ]


def by_binomials(num_labels: int, num_draws: int, keep: int) -> list[float]:
    """E[min(k, X_i)] - E[min(k, X_{i-1})], in fractions."""

    def expected(i: int) -> Fraction:
        p = Fraction(i, num_labels)
        return sum(
            min(keep, x) * comb(num_draws, x) * p**x * (1 - p) ** (num_draws - x)
            for x in range(num_draws + 1)
        ) + Fraction(0)

    return [float(expected(i) - expected(i - 1)) for i in range(1, num_labels + 1)]


@pytest.mark.parametrize(("num_labels", "num_draws", "keep"), [*SIZES, (30, 30, 5), (9, 9, 9)])
def test_without_replacement_they_are_those_of_exact_counting(
    num_labels: int, num_draws: int, keep: int
) -> None:
    theta_L = snm_weights(num_labels, num_draws, keep)
    assert theta_L == pytest.approx(by_counting(num_labels, num_draws, keep), rel=1e-12, abs=0.0)


@pytest.mark.parametrize(("num_labels", "num_draws", "keep"), [*SIZES, (10, 40, 5), (3, 90, 20)])
def test_with_replacement_they_are_those_of_exact_binomials(
    num_labels: int, num_draws: int, keep: int
) -> None:
    theta_L = snm_weights(num_labels, num_draws, keep, replacement=True)
    exact_L = by_binomials(num_labels, num_draws, keep)
    assert theta_L == pytest.approx(exact_L, rel=1e-8, abs=1e-25)


def draw(num_draws: int, replacement: bool) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """40,000 times so many of 30 labels, by rank from 0: int64 [40000, B]."""
    if replacement:
        return lambda rng: rng.integers(30, size=(40_000, num_draws))
    return lambda rng: rng.random((40_000, 30)).argsort(axis=1)[:, :num_draws]


@REPLACEMENT
@pytest.mark.parametrize("num_positives", [0, 4, 25])
def test_they_are_how_often_mining_keeps_each_rank(replacement: bool, num_positives: int) -> None:
    draws = draw(8, replacement)(np.random.default_rng(0))
    num_negatives = 30 - num_positives
    # Ranks past the negatives are positives: masked, so never kept.
    kept = np.sort(draws, axis=1)[:, :3]
    counts = np.stack([(kept == rank).sum(axis=1) for rank in range(num_negatives)], axis=1)
    theta_L = snm_weights(30, 8, 3, replacement=replacement)[:num_negatives]
    # Five standard errors, and one count where none came: wrong once in 10,000 seeds.
    tolerance = 5 * counts.std(axis=0) / np.sqrt(len(counts)) + 1 / len(counts) + 1e-4
    assert (np.abs(counts.mean(axis=0) - theta_L) < tolerance).all()


@REPLACEMENT
@pytest.mark.parametrize(
    ("num_labels", "num_draws", "keep"),
    [(1000, 100, 10), (1_000_000, 4096, 64), (1_000_000, 4096, 4095), (500, 400, 1)],
)
def test_they_sum_to_keep_and_never_increase(
    num_labels: int, num_draws: int, keep: int, replacement: bool
) -> None:
    theta_L = snm_weights(num_labels, num_draws, keep, replacement=replacement)
    assert theta_L.dtype == np.float64
    assert theta_L.shape == (num_labels,)
    assert theta_L.sum() == pytest.approx(keep, rel=1e-10)
    assert (np.diff(theta_L) <= 0).all()
    assert (theta_L >= 0).all()


def test_a_million_labels_keep_their_precision_without_replacement() -> None:
    theta_L = snm_weights(1_000_000, 4096, 64)
    ranks = np.array([1, 5000, 15_000, 20_000, 30_000])
    exact = stats.hypergeom.cdf(63, 999_999, ranks - 1, 4095) * 4096 / 1e6
    assert theta_L[ranks - 1] == pytest.approx(exact, rel=1e-9, abs=0.0)


def test_a_million_labels_keep_their_precision_with_replacement() -> None:
    theta_L = snm_weights(1_000_000, 4096, 64, replacement=True)
    ranks = np.array([1, 5000, 15_000, 20_000, 30_000])
    # Over a cell as narrow as 1e-6 the middle of the integrand is its mean to 1e-6.
    exact = stats.binom.cdf(63, 4095, (ranks - 0.5) / 1e6) * 4096 / 1e6
    assert theta_L[ranks - 1] == pytest.approx(exact, rel=1e-6, abs=0.0)


@REPLACEMENT
def test_keeping_every_draw_weighs_all_ranks_alike(replacement: bool) -> None:
    theta_L = snm_weights(50, 20, 20, replacement=replacement)
    assert theta_L.tolist() == [0.4] * 50


def test_drawing_every_label_is_the_exact_top_k() -> None:
    assert snm_weights(50, 50, 7).tolist() == [1.0] * 7 + [0.0] * 43


@pytest.mark.parametrize(
    ("sizes", "replacement", "field"),
    [
        ((0, 1, 1), False, "num_labels"),
        ((5, 0, 1), False, "num_draws"),
        ((5, 6, 1), False, "num_draws"),
        ((5, 0, 1), True, "num_draws"),
        ((5, 3, 4), False, "keep"),
        ((5, 3, 0), True, "keep"),
    ],
)
def test_sizes_that_no_mining_has_are_errors(
    sizes: tuple[int, int, int], replacement: bool, field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        snm_weights(*sizes, replacement=replacement)
    assert caught.value.field == field


def test_more_draws_than_labels_are_right_with_replacement() -> None:
    assert snm_weights(5, 6, 1, replacement=True).sum() == pytest.approx(1.0)
