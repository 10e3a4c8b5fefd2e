"""The ordered weighted loss that Stochastic Negative Mining is in expectation.

Shapes: L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import InvalidInputError

FloatArray = NDArray[np.float64]

# Gauss-Legendre nodes of a panel. A panel is no wider than one expected draw, over which the
# density is smooth: the rule is as exact as float64 can show.
_NUM_NODES = 8


def snm_weights(
    num_labels: int, num_draws: int, keep: int, *, replacement: bool = False
) -> FloatArray:
    """theta_i, how often SNM is expected to keep the negative of rank i: float64 [L], rank 1 first.

    SNM draws B = `num_draws` of all L = `num_labels` labels uniformly, masks the query's positives
    and keeps the k = `keep` highest scores. Summed over what it keeps, any function of the scores
    has the expectation sum_i theta_i g(s_[i]), so SNM is an ordered weighted loss
    (Reddi et al., AISTATS 2019). The weights are non-increasing and sum to k.

    Without replacement, a label is among the draws with probability B / L, and is then kept if at
    most k - 1 of the other B - 1 draws, out of the other L - 1 labels, are harder:

        theta_i = (B / L) P[Hypergeometric(L - 1, i - 1, B - 1) <= k - 1]
                = sum_{j < k} C(i - 1, j) C(L - i, B - 1 - j) / C(L, B).

    With replacement a label drawn twice is kept twice, and X_i ~ Binomial(B, i / L) draws have rank
    i or harder:

        theta_i = E[min(k, X_i)] - E[min(k, X_{i-1})]
                = B times the integral of P[Binomial(B - 1, p) <= k - 1] over p
                  from (i - 1) / L to i / L.

    Positives change neither formula. Draws come from all L labels, and a masked draw is never kept
    before an unmasked one: the P positives of a query act as its ranks L - P + 1 to L. Its
    negatives have the ranks 1 to L - P, so its weights are the first L - P of these. They sum to
    the expected number kept, which is below k only if fewer than k negatives may be drawn; without
    replacement that is if B - P < k.

    Divide by k for the mean over the kept ones, which is what the losses take.

    Raises:
        InvalidInputError: If keep > num_draws, or without replacement num_draws > num_labels, or
            one of them is below 1.
    """
    _check(num_labels, num_draws, keep, replacement=replacement)
    if keep == num_draws:
        return np.full(num_labels, num_draws / num_labels)
    if replacement:
        return _with_replacement(num_labels, num_draws, keep)
    return _without_replacement(num_labels, num_draws, keep)


def _check(num_labels: int, num_draws: int, keep: int, *, replacement: bool) -> None:
    if num_labels < 1:
        raise InvalidInputError("num_labels", expected="at least 1", actual=num_labels)
    if num_draws < 1 or (num_draws > num_labels and not replacement):
        most = "" if replacement else f" to {num_labels}, the number of labels,"
        raise InvalidInputError("num_draws", expected=f"1{most} or more", actual=num_draws)
    if not 1 <= keep <= num_draws:
        raise InvalidInputError("keep", expected=f"1 to num_draws ({num_draws})", actual=keep)


def _without_replacement(num_labels: int, num_draws: int, keep: int) -> FloatArray:
    """B / L times P[Y >= i], Y the rank of the k-th hardest of B - 1 draws out of L - 1 labels.

    At most k - 1 of these draws are among the i - 1 hardest labels if and only if Y >= i.
    """
    survival: FloatArray = np.zeros(num_labels)
    survival[:keep] = 1.0
    # Sums from the tail keep its relative precision and can only grow towards rank 1.
    tails = np.cumsum(_order_statistic(num_labels - 1, num_draws - 1, keep)[::-1])[::-1]
    survival[keep - 1 : keep - 1 + len(tails)] = tails / tails[0]
    survival *= num_draws / num_labels
    return survival


def _order_statistic(num_labels: int, num_draws: int, order: int) -> FloatArray:
    """Proportional to P[Y = y] for y = order, ..., Y the rank of the order-th hardest draw.

    That is C(y - 1, order - 1) C(L - y, B - order). Log-factorials of a million would lose half of
    the digits; so ratios of neighbours are summed, from the mode outwards, so that errors are
    least where the probability is largest.
    """
    later = num_draws - order
    y = np.arange(order, num_labels - later, dtype=np.float64)
    log_ratios = np.log1p(-later / (num_labels - y)) - np.log1p(-(order - 1) / y)
    mode = int((log_ratios > 0).sum())
    before = -np.cumsum(log_ratios[:mode][::-1])[::-1]
    after = np.cumsum(log_ratios[mode:])
    masses: FloatArray = np.exp(np.concatenate([before, [0.0], after]))
    return masses


def _with_replacement(num_labels: int, num_draws: int, keep: int) -> FloatArray:
    """B times the integral of P[U > p] over each rank's cell of width 1 / L.

    U ~ Beta(k, B - k) is the k-th smallest of B - 1 uniform variables, and has density f. Two
    neighbouring weights differ by the integral of f times a triangle over both cells, which is
    positive: summing these differences from the tail loses nothing to cancellation.
    """
    cells = np.arange(num_labels, dtype=np.float64)
    rising, falling = np.zeros(num_labels), np.zeros(num_labels)
    for place, weight in _quadrature(math.ceil(num_draws / num_labels)):
        density = _beta_density((cells + place) / num_labels, keep, num_draws - keep)
        rising += weight * place * density
        falling += weight * (1.0 - place) * density
    differences = rising
    differences[:-1] += falling[1:]
    weights: FloatArray = np.cumsum(differences[::-1])[::-1] * (num_draws / num_labels**2)
    return weights


def _quadrature(num_panels: int) -> Iterator[tuple[float, float]]:
    """Places and weights of a composite Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NUM_NODES)
    for panel in range(num_panels):
        for node, weight in zip(nodes, weights, strict=True):
            yield float(panel + (1.0 + node) / 2) / num_panels, float(weight) / 2 / num_panels


def _beta_density(p: FloatArray, a: int, b: int) -> FloatArray:
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    density: FloatArray = np.exp(log_scale + (a - 1) * np.log(p) + (b - 1) * np.log1p(-p))
    return density
