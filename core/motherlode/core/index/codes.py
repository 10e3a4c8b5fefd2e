"""Indexes of FAISS that hold a short code of each label in place of its embedding.

All compare by inner product, whatever the lengths of the vectors. Vectors and queries come with
zeros added up to a width that FAISS is quick with, and leave scores as they are.

Shapes: B queries, L labels in all, C candidates, W width of the vectors, a multiple of 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.index.config import HnswConfig, IvfConfig, ScanConfig, subvector_width_of
from motherlode.core.index.faiss import faiss, new_graph, new_results, one_thread, selector
from motherlode.core.queries import FloatArray, IntArray

# FAISS decodes 16 values at once, and those of other widths one by one: eight times slower.
_STEP = 16
# Fewer vectors cannot train codes of 8 bits.
_LEAST_SAMPLES = 256
_SAMPLES_PER_LIST = 128
_SAMPLES_PER_CODE = 64
_KMEANS_ROUNDS = 10
# Of rabitq: bits of a query's values. With 0 the query stays in float32.
_QUERY_BITS = 8
# Goes through the lists of each query in one order, so that equal scores are settled alike in every
# batch. What FAISS takes by itself depends on the number of queries.
_ONE_BY_ONE = 10
_SCALAR_TYPES = {"sq8": "QT_8bit", "fp16": "QT_fp16"}


def padded_width(width: int) -> int:
    """The width of vectors that hold `width` values."""
    return -(-width // _STEP) * _STEP


def new_codes(config: ScanConfig, width: int) -> Any:
    """An index of no vectors yet, that compares a query with all its codes."""
    match config.codes:
        case "sq8" | "fp16":
            return _scalar_codes(width, config.codes)
        case "pq_fast_scan":
            num_parts = width // subvector_width_of(config)
            return faiss.IndexPQFastScan(width, num_parts, 4, faiss.METRIC_INNER_PRODUCT)
        case "rabitq":
            index = faiss.IndexRaBitQ(width, faiss.METRIC_INNER_PRODUCT)
            index.qb = _QUERY_BITS
            return index


def new_coded_lists(config: IvfConfig, width: int, nlist: int, *, spherical: bool) -> Any:
    """Inverted lists of no vectors yet, whose lists are found as `new_lists` has it."""
    metric = faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlat(width, metric if spherical else faiss.METRIC_L2)
    shape = quantizer, width, nlist
    match config.codes:
        case "sq8" | "fp16":
            scalar_type = getattr(faiss.ScalarQuantizer, _SCALAR_TYPES[config.codes])
            index = faiss.IndexIVFScalarQuantizer(*shape, scalar_type, metric, False)
        case "pq":
            index = faiss.IndexIVFPQ(*shape, width // subvector_width_of(config), 8, metric)
        case "pq_fast_scan":
            num_parts = width // subvector_width_of(config)
            index = faiss.IndexIVFPQFastScan(*shape, num_parts, 4, metric)
            index.by_residual = True
        case "rabitq":
            index = faiss.IndexIVFRaBitQ(*shape, metric)
            index.qb = _QUERY_BITS
    index.quantizer_trains_alone = 0
    index.cp.spherical = spherical
    return index


def fill(index: Any, vectors_LW: FloatArray, *, seed: int = 0) -> Any:
    """Trains a new index, adds the vectors and returns it, ready to be searched."""
    if hasattr(index, "pq"):
        _set_rounds(index.pq.cp, _SAMPLES_PER_CODE, seed)
    if hasattr(index, "cp"):
        _set_rounds(index.cp, _SAMPLES_PER_LIST, seed)
    # Few labels are taken several times over.
    samples = np.resize(vectors_LW, (max(len(vectors_LW), _LEAST_SAMPLES), vectors_LW.shape[1]))
    # Matrix products may round differently with another number of threads.
    with one_thread():
        index.train(samples)
        index.add(vectors_LW)
    return made_ready(index)


def made_ready(index: Any) -> Any:
    """The index, set to search alike in every batch, without tables it has no use for."""
    if hasattr(index, "precomputed_table"):
        # For codes compared by distance. FAISS makes it where lists are found by distance.
        index.use_precomputed_table = 0
        index.precomputed_table.resize(0)
    # Files hold how to search, too; no file is trusted with that.
    if isinstance(index, faiss.IndexPQFastScan | faiss.IndexIVFPQFastScan):
        index.implem = _ONE_BY_ONE if hasattr(index, "nlist") else 0
        index.qbs = index.skip = 0
    return index


def _set_rounds(clustering: Any, samples_per_centroid: int, seed: int) -> None:
    clustering.seed = seed % 2**31
    clustering.niter = _KMEANS_ROUNDS
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = samples_per_centroid


def new_coded_graph(config: HnswConfig, vectors_LW: FloatArray, *, seed: int) -> Any:
    """An HNSW graph over the vectors, whose walks compare a query with their codes.

    The edges are those between the vectors themselves: codes only serve the walk.
    """
    graph = new_graph(vectors_LW, config.num_neighbors, config.ef_construction, seed=seed)
    index = empty_coded_graph(config, vectors_LW.shape[1])
    index.hnsw = graph.hnsw
    storage = faiss.downcast_index(index.storage)
    storage.train(vectors_LW)
    storage.add(vectors_LW)
    index.ntotal = storage.ntotal
    index.is_trained = True
    return index


def empty_coded_graph(config: HnswConfig, width: int) -> Any:
    """A graph of no vectors."""
    scalar_type = getattr(faiss.ScalarQuantizer, _SCALAR_TYPES[config.codes])
    metric = faiss.METRIC_INNER_PRODUCT
    return faiss.IndexHNSWSQ(width, scalar_type, config.num_neighbors, metric)


def _scalar_codes(width: int, codes: str) -> Any:
    scalar_type = getattr(faiss.ScalarQuantizer, _SCALAR_TYPES[codes])
    return faiss.IndexScalarQuantizer(width, scalar_type, faiss.METRIC_INNER_PRODUCT)


def can_filter(index: Any) -> bool:
    """Whether `search_codes` takes a filter."""
    return not isinstance(index, faiss.IndexPQFastScan)


def search_codes(
    index: Any, queries_BW: FloatArray, count: int, allowed_L: NDArray[np.bool_] | None
) -> IntArray:
    """int64 [B, count]: rows whose codes have the highest scores; -1 where there are no more."""
    scores_BC, rows_BC = new_results(len(queries_BW), count)
    index.search_c(
        len(queries_BW),
        faiss.swig_ptr(queries_BW),
        count,
        faiss.swig_ptr(scores_BC),
        faiss.swig_ptr(rows_BC),
        _parameters(index, allowed_L),
    )
    return rows_BC


def _parameters(index: Any, allowed_L: NDArray[np.bool_] | None) -> Any:
    if allowed_L is None:
        return None
    if isinstance(index, faiss.IndexRaBitQ):
        return faiss.RaBitQSearchParameters(sel=selector(allowed_L), qb=index.qb)
    return faiss.SearchParameters(sel=selector(allowed_L))
