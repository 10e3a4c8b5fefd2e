"""Sparse linear classifiers, one of each label: support vector machines fitted by LIBLINEAR.

They are solved in processes, since LIBLINEAR draws the order of its steps from one generator for
all threads.

Shapes: B queries, F features, L labels, P pairs of a label and a query that it learns from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

import numpy as np
import torch
from scipy import sparse

from motherlode.core.queries import IntArray, SparseQueries
from motherlode.core.rankers import SparseWeights
from motherlode.core.topk import TopK
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.linear_machines import ClassifiersConfig, Pairs, Solution, solve_blocks
from motherlode.trainer.processes import in_processes

_PAIRS_OF_BLOCK = 2000
# What a process is handed at a time: about a second's work.
_BLOCKS_OF_TASK = 64


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
    blocks = list(_blocks(pairs.labels_P))
    tasks = [blocks[i : i + _BLOCKS_OF_TASK] for i in range(0, len(blocks), _BLOCKS_OF_TASK)]
    work = partial(solve_blocks, config, matrix, pairs)
    solutions = in_processes(work, tasks, most=torch.get_num_threads())
    return _weights(list(chain.from_iterable(solutions)), num_labels, queries.num_features)


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
    wrong_keys = np.setdiff1d(hit_keys[has_queries_L[shortlist.labels]], true_keys)
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


def _weights(solutions: list[Solution], num_labels: int, num_features: int) -> SparseWeights:
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
