"""Principal components of training features, by randomised subspace iteration.

Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4,
on the covariance of the features. The mean is taken off implicitly, so that a sparse matrix is
never filled.

Shapes: B queries of a part, N training queries, F features, K components, J trial directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, Features
from motherlode.core.rankers import Whitening

_OVERSAMPLING = 10
_ITERATIONS = 6
_PART = 1 << 15
# Directions along which the features vary less than this, relative to the first, are left out.
_LEAST_RATIO = 1e-9

Doubles = NDArray[np.float64]


def fit_whitening(
    features: Features, num_components: int, generator: np.random.Generator
) -> Whitening:
    """The first principal components of the features, each at mean 0 and variance 1.

    On the training features the components are uncorrelated and of unit variance to rounding, even
    where the iteration has not found the very largest ones. Where the features vary in fewer
    directions than asked for, the remaining components are zero for every query. Unlike the
    released code of the paper, features are not first scaled to unit variance each: that would give
    the rarest words of a text the greatest weight.

    Args:
        features: N training queries.
        num_components: K.
        generator: The only source of randomness; the same state gives the same bits.

    Raises:
        InvalidInputError: If there is no query.
    """
    if len(features) == 0:
        raise InvalidInputError("features", expected="at least 1 query", actual=0)
    covariance = _Covariance(features)
    num_trials = min(num_components + _OVERSAMPLING, covariance.num_features)
    basis_FJ = generator.standard_normal((covariance.num_features, num_trials))
    for _ in range(_ITERATIONS):
        basis_FJ = np.linalg.qr(covariance.times(basis_FJ))[0]
    # Rayleigh and Ritz: the best directions inside the subspace found.
    variances_J, rotation_JJ = np.linalg.eigh(basis_FJ.T @ covariance.times(basis_FJ))
    order_K = np.argsort(-variances_J, kind="stable")[:num_components]
    directions_FK = _with_fixed_signs(basis_FJ @ rotation_JJ[:, order_K])
    table_FK = np.zeros((covariance.num_features, num_components), np.float32)
    table_FK[:, : len(order_K)] = directions_FK * _inverse_deviations(variances_J[order_K])
    # With the rounded table, so that the mean goes where transform sends it.
    offset_K = covariance.mean_F @ table_FK.astype(np.float64)
    return Whitening(table_FK, offset_K.astype(np.float32))


@final
class _Covariance:
    """The covariance matrix of features, never formed: it can be multiplied with.

    Attributes:
        num_features: F.
        mean_F: float64 [F].
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        totals_F = sum(np.asarray(part.sum(axis=0)).ravel() for part in _parts(features))
        self.mean_F: Doubles = np.asarray(totals_F, np.float64) / len(features)
        self.num_features = len(self.mean_F)

    def times(self, basis_FJ: Doubles) -> Doubles:
        """(1/N) sum_n (x_n - mean) (x_n - mean)^T @ basis: float64 [F, J]."""
        shift_J = self.mean_F @ basis_FJ
        product_FJ = np.zeros_like(basis_FJ)
        for part in _parts(self._features):
            product_FJ += part.T @ (part @ basis_FJ - shift_J)
        # The other mean needs no term: what stands in brackets sums to zero over all queries.
        product_FJ /= len(self._features)
        return product_FJ


def _parts(features: Features) -> Iterator[Any]:
    """Consecutive rows as float64 matrices, sparse where the features are: [B, F]."""
    for start in range(0, len(features), _PART):
        part = features.rows(start, min(start + _PART, len(features)))
        if isinstance(part, DenseQueries):
            yield part.features_BF.astype(np.float64)
        else:
            arrays = (part.values.astype(np.float64), part.indices, part.indptr)
            yield csr_matrix(arrays, shape=(len(part), part.num_features))


def _inverse_deviations(variances_K: Doubles) -> Doubles:
    is_real_K = variances_K > _LEAST_RATIO * max(variances_K[0], np.finfo(np.float32).tiny)
    return np.where(is_real_K, 1.0 / np.sqrt(np.where(is_real_K, variances_K, 1.0)), 0.0)


def _with_fixed_signs(directions_FK: Doubles) -> Doubles:
    """Each direction with its largest entry positive; otherwise rounding would choose the sign."""
    largest_K = np.abs(directions_FK).argmax(axis=0)
    signs_K = np.sign(directions_FK[largest_K, np.arange(directions_FK.shape[1])])
    return directions_FK * np.where(signs_K == 0, 1.0, signs_K)
