"""Label embeddings and queries for tests of indexes and of what looks at labels.

Shapes: B queries, L labels, D embedding width.
"""

from __future__ import annotations

from typing import final

import numpy as np
from torch import Tensor

from motherlode.core.queries import FloatArray, IntArray


@final
class TableLabels:
    """Labels whose embeddings are the rows of a table, for samplers; counts how often asked."""

    def __init__(self, labels_LD: Tensor) -> None:
        self.labels_LD = labels_LD
        self.num_asked = 0

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.labels_LD)

    def label_embeddings(self) -> FloatArray:
        """A copy of the table: float32 [L, D]."""
        self.num_asked += 1
        embeddings: FloatArray = self.labels_LD.numpy().copy()
        return embeddings


def clustered(
    num_labels: int,
    width: int,
    *,
    spread: float = 0.0,
    shared: float = 0.0,
    noise: float = 0.8,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Labels around random directions, 20 a direction, and 200 queries each near to a label.

    Args:
        num_labels: L.
        width: D.
        spread: Standard deviation of the logarithm of the labels' lengths; 0 for length 1.
        shared: Weight of a direction that all labels have in common.
        noise: Of labels around their direction, relative to its length.
        seed: Another seed gives other embeddings.

    Returns:
        float32 [L, D] and float32 [200, D].
    """
    generator = np.random.default_rng(seed)
    drawn_CD = generator.standard_normal((max(1, num_labels // 20), width))
    centres_CD = unit(drawn_CD + shared * generator.standard_normal(width))
    scale = noise / np.sqrt(width)
    nearby_LD = centres_CD[generator.integers(len(centres_CD), size=num_labels)]
    labels_LD = unit(nearby_LD + scale * generator.standard_normal(nearby_LD.shape))
    asked_BD = labels_LD[generator.integers(num_labels, size=200)]
    queries_BD = unit(asked_BD + 2 * scale * generator.standard_normal(asked_BD.shape))
    lengths_L1 = np.exp(spread * generator.standard_normal((num_labels, 1)))
    return (labels_LD * lengths_L1).astype(np.float32), queries_BD


def unit(rows: FloatArray | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> FloatArray:
    """The rows at length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def best_by_sorting(
    queries_BD: FloatArray, labels_LD: FloatArray, k: int, allowed: IntArray | None = None
) -> tuple[IntArray, FloatArray]:
    """Labels and scores [B, K] by the definition: score every pair, sort by score and label."""
    rows = np.arange(len(labels_LD)) if allowed is None else allowed
    scores_BA = np.stack([np.vecdot(labels_LD[rows], query_D) for query_D in queries_BD])
    order_BK = np.argsort(-scores_BA, axis=1, kind="stable")[:, :k]
    return rows[order_BK], np.take_along_axis(scores_BA, order_BK, axis=1)
