"""Rankers with random weights, for tests."""

from __future__ import annotations

import numpy as np

from motherlode.core.queries import FloatArray, SparseQueries
from motherlode.core.rankers import (
    INPUTS,
    INPUTS_WITH_NEIGHBORS,
    HiddenUnits,
    LabelTexts,
    LabelTree,
    Neighbors,
    NeighborsConfig,
    Ranker,
    SparseLinear,
    SparseLinearConfig,
    SparseWeights,
    TreeCorrection,
    TreeCorrectionConfig,
    Whitening,
)
from tests.support.label_trees import random_tree

RANKER_KINDS = ("tree_correction", "sparse_linear")
# Of query embeddings.
WIDTH = 6
JOIN = (20.0, 1.0, -0.5, 0.1, 0.2, -0.1, 0.3)


def random_ranker(
    kind: str,
    num_features: int,
    num_labels: int,
    *,
    width: int = WIDTH,
    shortlist: int = 100,
    seed: int = 0,
) -> Ranker:
    """A ranker whose part is too small to move a hit that is far above the others."""
    if kind == "tree_correction":
        return random_correction(num_features, num_labels, shortlist, seed)
    weights = random_weights(num_features, num_labels, seed=seed)
    frequencies_L = np.random.default_rng(seed).integers(0, 50, num_labels)
    neighbors = random_neighbors(num_labels, width, seed=seed)
    hidden = random_units(len(INPUTS_WITH_NEIGHBORS), seed=seed)
    config = SparseLinearConfig(
        shortlist=shortlist, join=JOIN, hidden=hidden, neighbors=neighbors.config
    )
    texts = LabelTexts.of(random_sparse(num_labels, num_features, seed=seed))
    return SparseLinear(config, weights, frequencies_L, texts, neighbors)


def random_neighbors(num_labels: int, width: int, *, seed: int = 0) -> Neighbors:
    """Twenty training queries with 0 to 5 labels each, of which 7 are looked at."""
    generator = np.random.default_rng(seed)
    embeddings_TD = generator.standard_normal((20, width)).astype(np.float32)
    lengths = generator.integers(0, min(6, num_labels), 20)
    rows = [generator.choice(num_labels, size, replace=False) for size in lengths]
    offsets_T = np.cumsum([0, *lengths])
    config = NeighborsConfig(count=7)
    return Neighbors.build(
        config, embeddings_TD, offsets_T, np.concatenate(rows), num_labels, seed=seed
    )


def random_units(num_inputs: int = len(INPUTS), *, seed: int = 0) -> HiddenUnits:
    """Five of a sparse linear ranker."""
    generator = np.random.default_rng(seed)
    return HiddenUnits(
        inner=tuple(map(tuple, generator.standard_normal((5, num_inputs)).tolist())),
        biases=tuple(generator.standard_normal(5).tolist()),
        outer=tuple((generator.standard_normal(5) / 4).tolist()),
    )


def random_correction(
    num_features: int, num_labels: int, shortlist: int, seed: int = 0
) -> TreeCorrection:
    """A correction by a random tree."""
    tree = random_tree(num_labels, seed=seed)
    is_free_V = np.abs(tree.biases_V) < 100
    biases_V = np.where(is_free_V, tree.biases_V / 4, tree.biases_V).astype(np.float32)
    tree = LabelTree((tree.weights_VK / 4).astype(np.float32), biases_V, tree.labels_E)
    generator = np.random.default_rng(seed)
    table_FK = generator.standard_normal((num_features, tree.num_components)).astype(np.float32)
    whitening = Whitening(table_FK, np.zeros(tree.num_components, np.float32))
    return TreeCorrection(TreeCorrectionConfig(scale=20.0, shortlist=shortlist), whitening, tree)


def random_weights(num_features: int, num_labels: int, *, seed: int = 0) -> SparseWeights:
    """Classifiers with weights of a third of all features; that of label 0 has a bias alone."""
    generator = np.random.default_rng(seed)
    has_weight_FL = generator.random((num_features, num_labels)) < 1 / 3
    has_weight_FL[:, 0] = False
    keys_W = np.flatnonzero(has_weight_FL)
    values_W, biases_L = (
        (generator.standard_normal(size) / 4).astype(np.float32)
        for size in (len(keys_W), num_labels)
    )
    return SparseWeights(keys_W, values_W, biases_L, num_features)


def dense_weights(weights: SparseWeights) -> FloatArray:
    """float32 [L, F]: the same with all zeros."""
    dense = np.zeros(weights.num_features * weights.num_labels, np.float32)
    dense[weights.keys_W] = weights.values_W
    return dense.reshape(weights.num_features, weights.num_labels).T


def random_sparse(num_queries: int, num_features: int, seed: int = 0) -> SparseQueries:
    """Queries with up to 6 features each; the first has none."""
    generator = np.random.default_rng(seed)
    lengths = [0, *generator.integers(1, min(7, num_features), num_queries - 1)]
    rows = [np.sort(generator.choice(num_features, size, replace=False)) for size in lengths]
    values = generator.random(sum(lengths), dtype=np.float32)
    indptr = np.cumsum([0, *lengths])
    return SparseQueries(indptr, np.concatenate(rows).astype(np.int64), values, num_features)
