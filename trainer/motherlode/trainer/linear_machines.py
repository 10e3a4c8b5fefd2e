"""Support vector machines of many labels, fitted by LIBLINEAR.

The machines of many labels are one problem with a block-diagonal matrix, so that the solver is
called some hundred times and not once for each label. A block is small enough to stay near the
processor.

This is what the processes that fit them import, so neither torch nor FAISS is.

Shapes: F features, P pairs of a label and a query that it learns from.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from motherlode.core.queries import IntArray


class ClassifiersConfig(BaseModel):
    """How the machines are fitted."""

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
class Solution:
    """Weights of some labels.

    Attributes:
        labels: int64, of each weight.
        features: int64, likewise; feature F is the bias.
        values: float64, likewise.
    """

    labels: IntArray
    features: IntArray
    values: NDArray[np.float64]


def solve_blocks(
    config: ClassifiersConfig, matrix: sparse.csr_matrix, pairs: Pairs, blocks: Sequence[slice]
) -> list[Solution]:
    """The machines of each block of labels.

    Args:
        config: How.
        matrix: The queries, with the bias as feature F.
        pairs: Of all labels.
        blocks: Those of whole labels.
    """
    return [_solve(config, matrix, pairs.part(block)) for block in blocks]


def _solve(config: ClassifiersConfig, matrix: sparse.csr_matrix, pairs: Pairs) -> Solution:
    """The machines of one block of labels."""
    rows = matrix[pairs.rows_P]
    num_pairs, num_columns = rows.shape
    bias = num_columns - 1
    labels, places_P = np.unique(pairs.labels_P, return_inverse=True)
    if pairs.is_true_P.all():
        # Nothing to tell apart: the margin is that of the true.
        return Solution(labels, np.full(len(labels), bias), np.ones(len(labels)))
    # A column for each label and feature that meet in a pair.
    keys = np.repeat(places_P, np.diff(rows.indptr)) * num_columns + rows.indices
    columns, indices = _distinct(keys)
    problem = sparse.csr_matrix(
        (rows.data.astype(np.float64), indices, rows.indptr), (num_pairs, len(columns))
    )
    weights = _liblinear(config, problem, pairs.is_true_P)
    places, of_columns = np.divmod(columns, num_columns)
    is_kept = (np.abs(weights) >= config.smallest_weight) | (of_columns == bias)
    return Solution(labels[places[is_kept]], of_columns[is_kept], weights[is_kept])


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


def _liblinear(
    config: ClassifiersConfig, problem: sparse.csr_matrix, is_true_P: NDArray[np.bool_]
) -> NDArray[np.float64]:
    # It takes a second to import, which no other ranker should cost.
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
    with warnings.catch_warnings():
        # To stop early costs no quality here, and much less time.
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights: NDArray[np.float64] = machine.fit(problem, is_true_P).coef_[0]
    return weights
