"""Queries of features at random, for benchmarks that look at time and memory alone."""

from __future__ import annotations

import numpy as np

from motherlode.core.queries import SparseQueries

FEATURES_A_QUERY = 24


def random_features(rng: np.random.Generator, num_queries: int, num_features: int) -> SparseQueries:
    """Queries of 24 features each, out of `num_features`."""
    entries = num_queries * FEATURES_A_QUERY
    return SparseQueries(
        np.arange(0, entries + 1, FEATURES_A_QUERY, dtype=np.int64),
        rng.integers(num_features, size=entries),
        rng.random(entries, dtype=np.float32),
        num_features,
    )
