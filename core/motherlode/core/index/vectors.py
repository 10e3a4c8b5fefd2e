"""Label and query embeddings in the form that an index of FAISS compares.

Shapes: B queries, L labels in all, D embedding width, W width of vectors, at least D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motherlode.core.index.index import LabelEmbeddings
from motherlode.core.queries import FloatArray

# Beyond this spread of the labels' lengths (deviation over mean), directions alone make bad lists.
_EVEN_LENGTHS = 0.25


def lengths(labels_LD: FloatArray) -> NDArray[np.float64]:
    """float64 [L]."""
    lengths_L: NDArray[np.float64] = np.sqrt(np.vecdot(labels_LD, labels_LD, dtype=np.float64))
    return lengths_L


def has_even_lengths(norms_L: NDArray[np.float64]) -> bool:
    """Whether labels of these lengths may be grouped by direction."""
    return bool(norms_L.std() <= _EVEN_LENGTHS * norms_L.mean())


def lengthened(labels: LabelEmbeddings, norms_L: NDArray[np.float64]) -> FloatArray:
    """float32 [L, D + 1]: labels with a last value that makes them all as long as the longest."""
    missing_L = np.sqrt(np.maximum(labels.norm**2 - norms_L**2, 0))
    return np.column_stack([labels.labels_LD, missing_L]).astype(np.float32)


def with_even_lengths(labels: LabelEmbeddings) -> tuple[FloatArray, bool]:
    """Labels to group: themselves where they are about as long, else lengthened; and which."""
    norms_L = lengths(labels.labels_LD)
    is_even = has_even_lengths(norms_L)
    return (labels.labels_LD if is_even else lengthened(labels, norms_L)), is_even


def centred(labels_LD: FloatArray) -> FloatArray:
    """float32 [L, D]: labels less their mean, which changes no order of a query's labels."""
    mean_D = labels_LD.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred_LD: FloatArray = labels_LD - mean_D
    return centred_LD


def widened(vectors_LD: FloatArray, width: int) -> FloatArray:
    """float32 [L, W]: vectors with zeros added; themselves if none are missing."""
    if vectors_LD.shape[1] == width:
        return vectors_LD
    wide_LW = np.zeros((len(vectors_LD), width), np.float32)
    wide_LW[:, : vectors_LD.shape[1]] = vectors_LD
    return wide_LW


def as_long_as_labels(queries_BD: FloatArray, norm: float, width: int) -> FloatArray:
    """float32 [B, W]: queries as long as the longest label, with zeros added."""
    # The largest value first: a tiny or huge square has no place in a float32. Each step
    # treats a query alone, so that its bits, and its lists, are the same in any batch.
    peaks_B = np.abs(queries_BD).max(axis=1, keepdims=True)
    scaled_BD = queries_BD / np.where(peaks_B > 0, peaks_B, 1)
    norms_B = np.sqrt(np.vecdot(scaled_BD, scaled_BD))[:, None]
    longer = np.zeros((len(queries_BD), width), np.float32)
    longer[:, : queries_BD.shape[1]] = scaled_BD * (
        np.float32(norm) / np.where(norms_B > 0, norms_B, 1)
    )
    return longer
