"""Where labels stand among queries: the vectors that are clustered.

mu_l is the normalised sum of psi(x) over the queries of label l, where psi(x) puts the features and
the embedding of a query side by side, each at length 1 (ELIAS, Gupta et al., NeurIPS 2022, section
4.3; PECOS calls it PIFA).

Shapes: B queries, L labels, F features, D embedding width, V width of the dense part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from motherlode.core.encoders import QueryEncoder
from motherlode.core.queries import DenseQueries, Features, FloatArray, SparseQueries
from motherlode.trainer.batches import chunks
from motherlode.trainer.data import PositiveRows

_CHUNK = 4096
# Heaviest features of a label that are kept: what most labels have, and most of all labels' length.
_FEATURES_PER_LABEL = 128


@final
@dataclass(frozen=True, slots=True, eq=False)
class Centroids:
    """One vector a label, at length 1 over both parts together.

    Attributes:
        sparse_LF: csr_array of float32 [L, F], from sparse features; None for dense ones.
        dense_LV: float32 [L, V], from embeddings and dense features.
    """

    sparse_LF: Any
    dense_LV: FloatArray


def label_centroids(
    encoder: QueryEncoder, features: Features, positives: PositiveRows, labels_LD: FloatArray
) -> Centroids:
    """mu_l of every label; one without a training query stands where its own embedding is.

    Args:
        encoder: Gives the embeddings of queries.
        features: B training queries.
        positives: Their labels.
        labels_LD: float32 [L, D], the labels' own embeddings.
    """
    labels_of = csr_array(
        (np.ones(len(positives.indices), np.float32), positives.indices, positives.indptr),
        shape=(len(features), len(labels_LD)),
    )
    by_label = labels_of.T.tocsr()
    dense_BV = _unit(_embeddings(encoder, features))
    sparse_LF = None
    if isinstance(features, DenseQueries):
        dense_BV = np.hstack([_unit(features.features_BF), dense_BV])
    else:
        sparse_LF = _heaviest(by_label @ _unit_features(features))
    dense_LV = np.asarray(by_label @ dense_BV, np.float32)
    is_unseen_L = np.diff(by_label.indptr) == 0
    dense_LV[is_unseen_L, -labels_LD.shape[1] :] = _unit(labels_LD[is_unseen_L])
    return _at_unit_length(sparse_LF, dense_LV)


def _embeddings(encoder: QueryEncoder, features: Features) -> FloatArray:
    return np.concatenate([encoder.encode(part) for _, part in chunks(features, _CHUNK)])


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)


def _unit_features(features: SparseQueries) -> Any:
    """csr_array [B, F], rows at length 1."""
    rows = np.repeat(np.arange(len(features)), np.diff(features.indptr))
    squares_B = np.bincount(rows, features.values.astype(np.float64) ** 2, len(features))
    scale_B = 1 / np.sqrt(np.where(squares_B > 0, squares_B, 1))
    values = (features.values * scale_B[rows]).astype(np.float32)
    shape = len(features), features.num_features
    return csr_array((values, features.indices, features.indptr), shape=shape)


def _heaviest(sums_LF: Any) -> Any:
    """The entries of each row that are largest in size, up to a number."""
    rows = np.repeat(np.arange(sums_LF.shape[0]), np.diff(sums_LF.indptr))
    order = np.lexsort((sums_LF.indices, -np.abs(sums_LF.data), rows))
    places = np.arange(len(order)) - sums_LF.indptr[rows]
    kept = np.sort(order[places < _FEATURES_PER_LABEL])
    entries: tuple[NDArray[Any], ...] = rows[kept], sums_LF.indices[kept]
    return csr_array((sums_LF.data[kept], entries), shape=sums_LF.shape)


def _at_unit_length(sparse_LF: Any, dense_LV: FloatArray) -> Centroids:
    squares_L = np.vecdot(dense_LV, dense_LV).astype(np.float64)
    if sparse_LF is not None:
        squares_L += sparse_LF.multiply(sparse_LF).sum(axis=1)
    scale_L = (1 / np.sqrt(np.where(squares_L > 0, squares_L, 1))).astype(np.float32)
    if sparse_LF is not None:
        sparse_LF.data *= np.repeat(scale_L, np.diff(sparse_LF.indptr))
    return Centroids(sparse_LF, dense_LV * scale_L[:, None])
