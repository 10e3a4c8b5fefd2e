"""Learned indexes without training: clusters around some labels, edges to the labels near them.

Shapes: L labels, C clusters, D embedding width.
"""

from __future__ import annotations

import numpy as np

from motherlode.core.index import (
    ClusterGraph,
    IndexConfig,
    LabelIndex,
    LearnedConfig,
    LearnedIndex,
    build_index,
)
from motherlode.core.index.index import LabelEmbeddings
from motherlode.core.index.paths import unit_queries
from motherlode.core.queries import FloatArray

# Sharp enough that the nearest clusters have nearly all of the softmax.
_SHARPNESS = 12.0
# Clusters of each label, where there are as many.
_COPIES = 3


def new_graph(labels_LD: FloatArray, num_clusters: int, *, seed: int) -> ClusterGraph:
    """Each label in its nearest clusters, with weights that fall with the distance."""
    generator = np.random.default_rng(seed)
    num_clusters = min(num_clusters, len(labels_LD))
    units_LD = unit_queries(labels_LD)
    chosen_C = generator.choice(len(labels_LD), num_clusters, replace=False)
    clusters_CD = units_LD[chosen_C]
    copies = min(_COPIES, num_clusters)
    # Not a matrix product, whose rounding depends on the number of threads.
    scores_LC = np.vecdot(units_LD[:, None], clusters_CD)
    nearest = np.argsort(-scores_LC, axis=1, kind="stable")[:, :copies]
    # Long labels have high inner products with all queries.
    lengths_L1 = np.linalg.norm(labels_LD, axis=1, keepdims=True)
    shares_L1 = lengths_L1 / max(lengths_L1.max(), 1e-9)
    weights = np.clip(np.take_along_axis(scores_LC, nearest, axis=1) * shares_L1, 1e-3, 1.0)
    return ClusterGraph.from_edges(
        _SHARPNESS * clusters_CD,
        nearest.ravel(),
        np.repeat(np.arange(len(labels_LD)), copies),
        weights.ravel().astype(np.float32),
    )


def build_any_index(config: IndexConfig, labels_LD: FloatArray, *, seed: int) -> LabelIndex:
    """What `build_index` gives; a learned index, which it does not, with clusters from here."""
    if not isinstance(config, LearnedConfig):
        return build_index(config, labels_LD, seed=seed)
    labels_LD = LabelEmbeddings.checked(labels_LD).labels_LD
    graph = new_graph(labels_LD, config.num_clusters or config.beam, seed=seed)
    beam = min(config.beam, graph.num_clusters)
    return LearnedIndex.build(
        LearnedConfig(
            num_clusters=graph.num_clusters,
            beam=beam,
            shortlist=config.shortlist,
            alpha=config.alpha,
        ),
        labels_LD,
        graph,
    )
