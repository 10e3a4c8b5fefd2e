"""Label trees for tests, and what they say by the definition."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.rankers import LabelTree
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_tree import fit_label_tree
from motherlode.trainer.negatives import LabelTreeConfig


def random_tree(num_labels: int, num_components: int = 3, seed: int = 0) -> LabelTree:
    """A tree with random weights; its padding and leaf order are those of a fitted tree."""
    rng = np.random.default_rng(seed)
    nothing = PositiveRows(np.zeros(1, np.int64), np.zeros(0, np.int64))
    empty = np.zeros((0, num_components), np.float32)
    tree = fit_label_tree(empty, nothing, num_labels, LabelTreeConfig())
    is_free_V = np.abs(tree.biases_V) < 100
    weights_VK = rng.standard_normal(tree.weights_VK.shape) * is_free_V[:, None]
    biases_V = np.where(is_free_V, rng.standard_normal(len(tree.biases_V)), tree.biases_V)
    order_L = rng.permutation(num_labels)
    labels_E = np.where(tree.labels_E >= 0, order_L[tree.labels_E], -1)
    return LabelTree(weights_VK.astype(np.float32), biases_V.astype(np.float32), labels_E)


def enumerated(tree: LabelTree, query_K: FloatArray) -> NDArray[np.float64]:
    """p_n(y|x) of every label, by walking from the root: float64 [L]."""
    probabilities_L = np.zeros(tree.num_labels)
    num_nodes = len(tree.biases_V)

    def walk(node: int, probability: float) -> None:
        if node >= num_nodes:
            label = tree.labels_E[node - num_nodes]
            assert label >= 0 or probability == 0.0
            probabilities_L[label] += probability
            return
        logit = float(tree.weights_VK[node].astype(float) @ query_K + tree.biases_V[node])
        right = 1 / (1 + np.exp(-logit)) if logit > -500 else 0.0
        walk(2 * node + 1, probability * (1 - right))
        walk(2 * node + 2, probability * right)

    walk(0, 1.0)
    return probabilities_L


def clustered_queries(
    num_queries: int, num_labels: int, num_components: int = 4, seed: int = 0
) -> tuple[FloatArray, IntArray]:
    """Queries near to the place of their one label, labels in few clusters: [N, K] and [N]."""
    rng = np.random.default_rng(seed)
    centres_CK = 3 * rng.standard_normal((max(1, num_labels // 8), num_components))
    places_LK = centres_CK[rng.integers(len(centres_CK), size=num_labels)]
    places_LK = places_LK + rng.standard_normal(places_LK.shape)
    labels_N = rng.integers(num_labels, size=num_queries)
    queries_NK = places_LK[labels_N] + 0.5 * rng.standard_normal((num_queries, num_components))
    return queries_NK.astype(np.float32), labels_N


def chi_square_over_bound(counts_L: IntArray, probabilities_L: NDArray[np.float64]) -> float:
    """Chi-square of counts against their distribution over its 99.99 % point; above 1 it is not it.

    Labels expected fewer than 5 times count together as one.
    """
    expected_L = counts_L.sum() * probabilities_L
    is_common_L = expected_L >= 5
    counts = np.append(counts_L[is_common_L], counts_L[~is_common_L].sum())
    expected = np.append(expected_L[is_common_L], expected_L[~is_common_L].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # By Wilson and Hilferty.
    freedom = len(counts) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    return chi_square / bound
