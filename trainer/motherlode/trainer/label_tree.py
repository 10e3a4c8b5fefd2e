"""Fitting p_n(y|x) to training data: the whitening, then the label tree level by level.

Bamler and Mandt, "Extreme Classification via Adversarial Softmax Approximation", ICLR 2020,
section 2.3.

Shapes: N training queries, K components, D = K + 1 with the bias, L labels, P pairs of a query and
a positive, V inner nodes of a level, M labels of a node, G nodes fitted together, X pairs of a
node.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from motherlode.core.compressed_rows import entries_of
from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import Features, FloatArray, IntArray
from motherlode.core.rankers import PADDING_BIAS, LabelTree
from motherlode.trainer.batches import row_of_each
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.negatives import (
    AdversarialConfig,
    AnyNegativesConfig,
    LabelTreeConfig,
    Proposal,
)
from motherlode.trainer.tree_nodes import Bools, Doubles, Nodes, fit_nodes
from motherlode.trainer.whitening import fit_whitening

# Numbers of pairs, and of the nodes' equations, at once: what a core keeps near itself, and solves
# in one call.
_MOST_INPUTS = 17 << 15
_MOST_COEFFICIENTS = 17**2 << 12
# Pairs of one matrix product: few enough that BLAS computes it in the thread that asks, so that the
# threads here do not wait for others, and that the bits do not depend on their number.
_TILE = 1 << 9

logger = logging.getLogger(__name__)


def new_proposal(
    config: AnyNegativesConfig,
    features: Features,
    positives: PositiveRows,
    num_labels: int,
    *,
    seed: int,
) -> Proposal | None:
    """The fitted p_n(y|x) that negatives are drawn from; None where their kind needs none.

    The same arguments give the same bits, so that a run which is resumed fits it again.

    Args:
        config: Of the negatives.
        features: N training queries.
        positives: Their labels.
        num_labels: L.
        seed: Of the whitening.

    Raises:
        InvalidInputError: If there is no query or no label.
    """
    if not isinstance(config, AdversarialConfig):
        return None
    started = time.monotonic()
    generator = np.random.default_rng(seed)
    proposal = fit_proposal(features, positives, num_labels, config.tree, generator)
    took_s = time.monotonic() - started
    sizes = f"{len(features):,} queries, {num_labels:,} labels"
    logger.info("fitted the label tree to %s in %.1f s", sizes, took_s)
    return proposal


def fit_proposal(
    features: Features,
    positives: PositiveRows,
    num_labels: int,
    config: LabelTreeConfig,
    generator: np.random.Generator,
) -> Proposal:
    """p_n(y|x), fitted to training queries and their labels; see `fit_label_tree`."""
    whitening = fit_whitening(features, config.num_components, generator)
    tree = fit_label_tree(whitening.transform(features), positives, num_labels, config)
    return Proposal(whitening, tree)


def fit_label_tree(
    projected_NK: FloatArray, positives: PositiveRows, num_labels: int, config: LabelTreeConfig
) -> LabelTree:
    """The tree whose likelihood of the positives is greedily the largest, from the root down.

    Labels with a training query are split by eq. (9). Those without one have nothing to go by: half
    of them goes either way at every node, in order of label, so that they are spread evenly. Below
    the last label with a query they are equally likely to within a factor of 2 from rounding
    halves; above it the split learns that nothing goes their way, so that each of them is unlikely
    but never impossible. Nothing is random, and the result does not depend on the number of
    threads.

    Args:
        projected_NK: float32 [N, K], whitened training queries.
        positives: Their labels; a query without any takes no part.
        num_labels: L.
        config: Regularisation and rounds.

    Raises:
        InvalidInputError: If there is no label, a positive is none of the labels, or the queries
            are not finite or not as many as those with positives.
    """
    _check(projected_NK, positives, num_labels)
    pairs = _Pairs(projected_NK, positives, num_labels)
    seen_first = np.argsort(pairs.counts_L == 0, kind="stable")
    labels_VM = seen_first[None]
    weights_VD, biases_V = [np.zeros((0, projected_NK.shape[1]))], [np.zeros(0)]
    while labels_VM.shape[1] > 1:
        parameters_VD, split_VM = _fit_level(pairs, labels_VM, config)
        weights_VD.append(parameters_VD[:, :-1])
        biases_V.append(parameters_VD[:, -1])
        labels_VM = _halves(labels_VM, split_VM)
    return LabelTree(
        np.concatenate(weights_VD).astype(np.float32),
        np.concatenate(biases_V).astype(np.float32),
        labels_VM[:, 0].copy(),
    )


@final
class _Pairs:
    """Pairs of a query and a positive, those of one label together.

    Attributes:
        counts_L: int64 [L], n_y.
        sums_LD: float64 [L, D], S_y and n_y.
    """

    def __init__(self, projected_NK: FloatArray, positives: PositiveRows, num_labels: int) -> None:
        self._projected_NK = projected_NK
        self.counts_L = positives.counts(num_labels)
        self._indptr = np.concatenate([[0], np.cumsum(self.counts_L)])
        by_label = np.argsort(positives.indices, kind="stable")
        self._rows_P = row_of_each(positives)[by_label]
        arrays = (np.ones(len(self._rows_P)), self._rows_P, self._indptr)
        members = csr_matrix(arrays, shape=(num_labels, len(projected_NK)))
        sums_LK = np.asarray(members @ projected_NK.astype(np.float64))
        self.sums_LD = np.hstack([sums_LK, self.counts_L[:, None]])

    def nodes(self, labels_GM: IntArray) -> Nodes:
        """What nodes over these labels, seen ones first and -1 last, are fitted to."""
        is_seen_GM = (labels_GM >= 0) & (self.counts_L[labels_GM] > 0)
        counts_G = is_seen_GM.sum(axis=1)
        labels_GM = labels_GM[:, : counts_G.max()]
        is_seen_GM = is_seen_GM[:, : counts_G.max()]
        lengths_GM = np.where(is_seen_GM, self.counts_L[labels_GM], 0)
        num_pairs_G = lengths_GM.sum(axis=1)
        num_tiles = -(-int(num_pairs_G.max()) // _TILE)
        tile = -(-int(num_pairs_G.max()) // num_tiles)
        shape_GX = len(labels_GM), num_tiles * tile
        _, entries = entries_of(self._indptr, labels_GM[is_seen_GM])
        is_pair_GX = np.arange(shape_GX[1]) < num_pairs_G[:, None]
        inputs_GXD = np.zeros((*shape_GX, self.sums_LD.shape[1]))
        inputs_GXD[is_pair_GX, :-1] = self._projected_NK[self._rows_P[entries]]
        inputs_GXD[is_pair_GX, -1] = 1.0
        slots_GX = np.zeros(shape_GX, np.int64)
        columns_GM = np.broadcast_to(np.arange(labels_GM.shape[1]), labels_GM.shape)
        slots_GX[is_pair_GX] = np.repeat(columns_GM.ravel(), lengths_GM.ravel())
        sums_GMD = np.where(is_seen_GM[..., None], self.sums_LD[labels_GM], 0.0)
        inputs_GTRD = inputs_GXD.reshape(len(labels_GM), num_tiles, tile, -1)
        return Nodes(inputs_GTRD, slots_GX, sums_GMD, counts_G)


def _fit_level(
    pairs: _Pairs, labels_VM: IntArray, config: LabelTreeConfig
) -> tuple[Doubles, Bools]:
    """Parameters float64 [V, D] of the nodes of a level, and bool [V, M] which labels go right."""
    is_label_VM = labels_VM >= 0
    counts_VM = np.where(is_label_VM, pairs.counts_L[labels_VM], 0)
    num_labels_V = is_label_VM.sum(axis=1)
    num_pairs_V = counts_VM.sum(axis=1)
    parameters_VD = np.zeros((len(labels_VM), pairs.sums_LD.shape[1]))
    split_VM = np.zeros(labels_VM.shape, np.bool_)

    def fit(chosen: IntArray) -> None:
        nodes = pairs.nodes(labels_VM[chosen])
        fitted_GD, split_GM = fit_nodes(nodes, config.regularization, config.max_rounds)
        parameters_VD[chosen] = fitted_GD
        split_VM[chosen, : split_GM.shape[1]] = split_GM

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        fitted_V = (num_pairs_V > 0) & (num_labels_V > 1)
        groups = _groups(np.flatnonzero(fitted_V), num_pairs_V, pairs.sums_LD.shape[1])
        list(threads.map(fit, groups))
    _split_unseen(split_VM, counts_VM > 0, num_labels_V)
    # Nothing is known of what stands below a node without a pair: its labels are equally likely.
    empty = (num_pairs_V == 0) & (num_labels_V > 1)
    num_right = split_VM[empty].sum(axis=1)
    parameters_VD[empty, -1] = np.log(num_right / (num_labels_V[empty] - num_right))
    parameters_VD[num_labels_V == 1, -1] = -PADDING_BIAS
    return parameters_VD, split_VM


def _groups(nodes: IntArray, num_pairs_V: IntArray, width: int) -> Iterator[IntArray]:
    """The nodes in groups to be fitted together, of like size, so that padding stays small."""
    most_pairs, most_nodes = _MOST_INPUTS // width, max(1, _MOST_COEFFICIENTS // width**2)
    nodes = nodes[np.argsort(-num_pairs_V[nodes], kind="stable")]
    start = 0
    while start < len(nodes):
        count = min(most_nodes, max(1, most_pairs // int(num_pairs_V[nodes[start]])))
        yield nodes[start : start + count]
        start += count


def _split_unseen(split_VM: Bools, is_seen_VM: Bools, num_labels_V: IntArray) -> None:
    """Sends half of the labels without a pair right, in place.

    Of an odd number the one left over goes where fewer labels with a pair are, so that the two
    sides of a node differ by one label at most. One label alone goes left.
    """
    num_seen_V = is_seen_VM.sum(axis=1)
    num_unseen_V = num_labels_V - num_seen_V
    has_room_V = 2 * split_VM.sum(axis=1) < num_seen_V
    is_left_over_V = (num_unseen_V % 2 == 1) & has_room_V
    last_V = num_seen_V + num_unseen_V // 2 + is_left_over_V
    columns_M = np.arange(split_VM.shape[1])
    split_VM |= (columns_M >= num_seen_V[:, None]) & (columns_M < last_V[:, None])


def _halves(labels_VM: IntArray, split_VM: Bools) -> IntArray:
    """The labels of the children, left and right of each node in turn, in unchanged order."""
    is_label_VM = labels_VM >= 0
    sides = np.stack([is_label_VM & ~split_VM, is_label_VM & split_VM], axis=1)
    sides_WM = sides.reshape(2 * len(labels_VM), -1)
    order_WM = np.argsort(~sides_WM, axis=1, kind="stable")[:, : -(-labels_VM.shape[1] // 2)]
    labels_WM = np.take_along_axis(np.repeat(labels_VM, 2, axis=0), order_WM, axis=1)
    return np.where(np.take_along_axis(sides_WM, order_WM, axis=1), labels_WM, -1)


def _check(projected_NK: FloatArray, positives: PositiveRows, num_labels: int) -> None:
    if num_labels < 1:
        raise InvalidInputError("num_labels", expected="at least 1", actual=num_labels)
    if len(projected_NK) != len(positives):
        expected = f"{len(positives)} queries, as many as have positives"
        raise InvalidInputError("projected", expected=expected, actual=len(projected_NK))
    labels: NDArray[Any] = positives.indices
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_labels:
        wrong = labels[(labels < 0) | (labels >= num_labels)][0]
        raise InvalidInputError("positives", expected=f"0 to {num_labels - 1}", actual=wrong)
    if not np.isfinite(projected_NK).all():
        raise InvalidInputError("projected", expected="finite numbers", actual="NaN or infinity")
