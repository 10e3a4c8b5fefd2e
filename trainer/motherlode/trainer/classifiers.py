"""Sparse linear classifiers, one of each label: support vector machines fitted by LIBLINEAR.

The machines of many labels are one problem with a block-diagonal matrix, so that the solver is
called some hundred times and not once for each label. A block is small enough to stay near the
processor. While one block is solved, a thread makes the problem of the next.

Shapes: B queries, F features, L labels, P pairs of a label and a query that it learns from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from motherlode.core.queries import IntArray, SparseQueries
from motherlode.core.rankers import SparseWeights
from motherlode.core.topk import TopK
from motherlode.trainer.ahead import made_ahead
from motherlode.trainer.data import PositiveRows

_PAIRS_OF_BLOCK = 2000


class ClassifiersConfig(BaseModel):
    """How the classifiers are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives: int = Field(default=30, ge=1, description="best wrong labels of each query to learn")
    cost: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="C of LIBLINEAR: higher fits closer"
    )
    tolerance: float = Field(default=0.1, gt=0, lt=1, description="at which the solver stops")
    max_rounds: int = Field(
        default=20, ge=1, le=10**6, description="after which it stops in any case"
    )
    smallest_weight: float = Field(
        default=0.1, ge=0, allow_inf_nan=False, description="smaller weights are dropped"
    )


@final
@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """What each label learns from, label by label.

    Attributes:
        labels_P: int64 [P], ascending.
        rows_P: int64 [P], queries, ascending within a label.
        is_true_P: bool [P], whether the label is true of the query.
    """

    labels_P: IntArray
    rows_P: IntArray
    is_true_P: NDArray[np.bool_]

    def part(self, chosen: slice) -> Pairs:
        """Some of them; the arrays are views."""
        return Pairs(self.labels_P[chosen], self.rows_P[chosen], self.is_true_P[chosen])


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The machines of one block of labels, as one.

    Attributes:
        matrix: float64 [P, N], N pairs of a label and a feature that meet.
        is_true_P: As in Pairs.
        labels_N: int64 [N].
        features_N: int64 [N], feature F being the bias.
    """

    matrix: sparse.csr_matrix
    is_true_P: NDArray[np.bool_]
    labels_N: IntArray
    features_N: IntArray


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """Weights of a block: label, feature and value of each, feature F being the bias."""

    labels: IntArray
    features: IntArray
    values: NDArray[np.float64]


def fit_classifiers(
    config: ClassifiersConfig,
    queries: SparseQueries,
    positives: PositiveRows,
    shortlist: TopK,
    num_labels: int,
) -> SparseWeights:
    """A classifier of each label, which tells its queries from those it is a hard negative of.

    A label without positives has no weights and the bias 0. Minimises |w|^2 / 2 + C sum max(0, 1 -
    y w x)^2 for each label (Fan et al., LIBLINEAR, JMLR 2008), by coordinate descent on the dual.

    Args:
        config: How.
        queries: B queries.
        positives: Their labels.
        shortlist: Their hits, of which those that are wrong are the negatives.
        num_labels: L.
    """
    pairs = make_pairs(positives, shortlist, num_labels)
    matrix = _with_bias(queries)
    blocks = _blocks(pairs.labels_P)
    problems = made_ahead(lambda block: _problem(matrix, pairs.part(block)), blocks)
    solutions = [_solve(config, problem, queries.num_features) for problem in problems]
    return _weights(solutions, num_labels, queries.num_features)


def make_pairs(positives: PositiveRows, shortlist: TopK, num_labels: int) -> Pairs:
    """Each label with its queries and those it is a wrong hit of; none of labels without queries.

    Args:
        positives: Of B queries.
        shortlist: Their hits.
        num_labels: L.
    """
    num_queries = len(positives)
    true_rows = np.repeat(np.arange(num_queries), np.diff(positives.indptr))
    hit_rows = np.repeat(np.arange(num_queries), shortlist.counts)
    has_queries_L = positives.counts(num_labels) > 0
    true_keys = np.sort(positives.indices * num_queries + true_rows)
    hit_keys = shortlist.labels * num_queries + hit_rows
    hit_keys = hit_keys[has_queries_L[shortlist.labels]]
    wrong_keys = np.setdiff1d(hit_keys, true_keys, assume_unique=True)
    keys = np.concatenate([true_keys, wrong_keys])
    order = np.argsort(keys, kind="stable")
    return Pairs(keys[order] // num_queries, keys[order] % num_queries, order < len(true_keys))


def _blocks(labels_P: IntArray) -> Iterator[slice]:
    """Whole labels, some thousand pairs at a time."""
    starts = np.flatnonzero(np.diff(labels_P, prepend=-1, append=-1))
    first = 0
    while first < len(labels_P):
        fits = int(np.searchsorted(starts, first + _PAIRS_OF_BLOCK, "right")) - 1
        last = int(starts[max(fits, int(np.searchsorted(starts, first, "right")))])
        yield slice(first, last)
        first = last


def _with_bias(queries: SparseQueries) -> sparse.csr_matrix:
    """The features of each query, and after them the bias as feature F, which is always 1."""
    shape = (len(queries), queries.num_features)
    matrix = sparse.csr_matrix((queries.values, queries.indices, queries.indptr), shape)
    return sparse.hstack([matrix, np.ones((len(queries), 1), np.float32)], format="csr")


def _problem(matrix: sparse.csr_matrix, pairs: Pairs) -> _Problem:
    rows = matrix[pairs.rows_P]
    num_pairs, num_columns = rows.shape
    labels, places_P = np.unique(pairs.labels_P, return_inverse=True)
    # A column for each label and feature that meet in a pair.
    keys = np.repeat(places_P, np.diff(rows.indptr)) * num_columns + rows.indices
    columns, indices = _distinct(keys)
    problem = sparse.csr_matrix(
        (rows.data.astype(np.float64), indices, rows.indptr), (num_pairs, len(columns))
    )
    places_N, features_N = np.divmod(columns, num_columns)
    return _Problem(problem, pairs.is_true_P, labels[places_N], features_N)


def _solve(config: ClassifiersConfig, problem: _Problem, num_features: int) -> _Solution:
    is_bias_N = problem.features_N == num_features
    if problem.is_true_P.all():
        # Nothing to tell apart: the margin is that of the true.
        weights_N, is_kept_N = np.ones(len(is_bias_N)), is_bias_N
    else:
        weights_N = _liblinear(config, problem)
        is_kept_N = (np.abs(weights_N) >= config.smallest_weight) | is_bias_N
    return _Solution(
        problem.labels_N[is_kept_N], problem.features_N[is_kept_N], weights_N[is_kept_N]
    )


def _distinct(keys: IntArray) -> tuple[IntArray, NDArray[np.int32]]:
    """As numpy.unique with return_inverse, in half the time: place and key are sorted as one."""
    num_bits = len(keys).bit_length()
    packed = np.sort((keys << num_bits) | np.arange(len(keys)))
    places = packed & ((1 << num_bits) - 1)
    packed >>= num_bits
    is_first = np.diff(packed, prepend=-1) > 0
    inverse = np.empty(len(keys), np.int32)
    inverse[places] = np.cumsum(is_first) - 1
    return packed[is_first], inverse


def _liblinear(config: ClassifiersConfig, problem: _Problem) -> NDArray[np.float64]:
    # It takes a second to import, which no other ranker should cost.
    from sklearn import config_context  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    machine = LinearSVC(
        C=config.cost,
        tol=config.tolerance,
        max_iter=config.max_rounds,
        dual=True,
        fit_intercept=False,
        random_state=0,
    )
    # Some hundred times the same parameters and finite values: not to look at them saves a tenth.
    unchecked = config_context(assume_finite=True, skip_parameter_validation=True)
    with unchecked, warnings.catch_warnings():
        # To stop early costs no quality here, and much less time.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(problem.matrix, problem.is_true_P.astype(np.float32))
    weights_N: NDArray[np.float64] = machine.coef_[0]
    return weights_N


def _weights(solutions: list[_Solution], num_labels: int, num_features: int) -> SparseWeights:
    """All solutions as one, sorted; the bias is that of feature F."""
    labels = np.concatenate([solution.labels for solution in solutions])
    features = np.concatenate([solution.features for solution in solutions])
    values = np.concatenate([solution.values for solution in solutions]).astype(np.float32)
    is_bias = features == num_features
    biases_L = np.zeros(num_labels, np.float32)
    biases_L[labels[is_bias]] = values[is_bias]
    keys = features[~is_bias] * num_labels + labels[~is_bias]
    order = np.argsort(keys)
    return SparseWeights(keys[order], values[~is_bias][order], biases_L, num_features)
