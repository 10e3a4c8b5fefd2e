"""All that Motherlode uses of FAISS, behind typed functions; `faiss` is imported here alone.

FAISS's own checks are never relied on: callers pass float32, C-contiguous, finite arrays of the
right width. Indexes are `Any`: FAISS's stubs miss half of what is used here.

Shapes: B queries, L labels in all, C candidates, A labels allowed, D embedding width.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss as untyped_faiss
import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import BundleError
from motherlode.core.index.rescoring import rescore
from motherlode.core.queries import FloatArray, IntArray

faiss: Any = untyped_faiss

FAISS_VERSION: str = faiss.__version__

# From FAISS 1.15 on a graph comes out the same whatever the number of threads.
_GRAPHS_ARE_DETERMINISTIC = hasattr(faiss, "hnsw_add_vertices_deterministic")
# A list's centroid is the mean of this many labels at most.
_SAMPLES_PER_LIST = 128
_KMEANS_ROUNDS = 10

# FAISS multiplies matrices only from 128,000 query floats on and takes a slow path below, some ten
# times slower for 64 queries. It is asked only where a matrix product pays, so: always.
faiss.cvar.distance_compute_blas_threshold = 0

_TABLE_SHARE = 8
_reading = threading.Lock()


class _Threads(threading.local):
    """What this thread has told OpenMP: the setting is one of each thread, not of the process."""

    applied: int | None = None
    own: int | None = None


_threads = _Threads()
_num_threads: int | None = None


def set_index_threads(n: int) -> None:
    """Sets how many OpenMP threads each search may use, in every thread of this process.

    It holds from the next search on. The queries of a batch are what is shared out, so a server
    with one engine thread sets the cores it may use, and callers that search from many threads at
    once set 1. Without a call, OpenMP decides (`OMP_NUM_THREADS`, or all cores).

    Raises:
        ValueError: If n is below 1.
    """
    global _num_threads  # noqa: PLW0603 - OpenMP's setting is global too, only per thread
    if n < 1:
        raise ValueError(f"n: expected at least 1 thread, got {n}")
    _num_threads = n


def limit_index_threads(n: int) -> None:
    """Sets how many OpenMP threads each search of the calling thread may use, and of no other."""
    _threads.own = n


def apply_index_threads() -> None:
    """Passes the number of threads on to OpenMP, for the calling thread."""
    wanted = _threads.own or _num_threads
    if wanted is not None and _threads.applied != wanted:
        faiss.omp_set_num_threads(wanted)
        _threads.applied = wanted


@contextmanager
def one_thread(*, needed: bool = True) -> Iterator[None]:
    """Work whose result would depend on the number of threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if needed else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
        # A search within may have applied its number, which is undone now.
        _threads.applied = None


def num_gpus() -> int:
    """GPUs that this build of FAISS can use; none with `faiss-cpu`."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def has_cuvs() -> bool:
    """Whether this build of FAISS has cuVS, and with it a GPU form of graphs."""
    return hasattr(faiss, "GpuIndexCagra")


def has_gpu_build() -> bool:
    """Whether this build of FAISS could use GPUs, if there were any."""
    return hasattr(faiss, "StandardGpuResources")


def build_options() -> str:
    """The options that FAISS was built with, such as `OPTIMIZE AVX2 AVX512`."""
    return str(faiss.get_compile_options()).strip()


def max_openmp_threads() -> int:
    """OpenMP threads that a search from this thread would use if nothing were set."""
    return int(faiss.omp_get_max_threads())


def top_inner_products(
    queries_BD: FloatArray, labels_LD: FloatArray, count: int
) -> tuple[FloatArray, IntArray]:
    """The labels with the `count` highest inner products of each query, by matrix products.

    Returns:
        FAISS's scores float32 and rows int64, both [B, count], best first; count is at most L.
    """
    scores_BC, rows_BC = new_results(len(queries_BD), count)
    faiss.knn_inner_product(
        faiss.swig_ptr(queries_BD),
        faiss.swig_ptr(labels_LD),
        labels_LD.shape[1],
        len(queries_BD),
        len(labels_LD),
        count,
        faiss.swig_ptr(scores_BC),
        faiss.swig_ptr(rows_BC),
    )
    return scores_BC, rows_BC


def new_flat(width: int) -> Any:
    """An index of no vectors: all that an exact index has to remember is the width."""
    return faiss.IndexFlatIP(width)


def new_graph(labels_LD: FloatArray, num_neighbors: int, ef_construction: int, *, seed: int) -> Any:
    """An HNSW graph over the labels, by inner product; `attach_labels` makes it searchable."""
    index = faiss.IndexHNSWFlat(labels_LD.shape[1], num_neighbors, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ef_construction
    index.hnsw.rng = faiss.RandomGenerator(seed)
    with one_thread(needed=not _GRAPHS_ARE_DETERMINISTIC):
        index.add(labels_LD)
    graph = faiss.serialize_index(index, faiss.IO_FLAG_SKIP_STORAGE)
    return faiss.deserialize_index(graph, faiss.IO_FLAG_SKIP_STORAGE)


def attach_labels(graph: Any, labels_LD: FloatArray) -> object:
    """Lets a graph without vectors compare queries with these labels, which it does not copy.

    Returns:
        What must live as long as the graph, as the labels must: the graph has bare pointers.
    """
    storage = faiss.IndexFlatIP(graph.d)
    empty = faiss.MaybeOwnedVectorUInt8()
    storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(
        faiss.swig_ptr(labels_LD), labels_LD.nbytes, empty.owner
    )
    storage.ntotal = len(labels_LD)
    graph.storage = storage
    graph.own_fields = False
    return storage


def search_graph(
    graph: Any, queries_BD: FloatArray, count: int, ef: int, allowed_L: NDArray[np.bool_] | None
) -> IntArray:
    """int64 [B, count]: rows that a walk with `ef` candidates finds; -1 where there are no more."""
    if allowed_L is None:
        parameters = _graph_parameters(ef)
    else:
        parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector(allowed_L))
    scores_BC, rows_BC = new_results(len(queries_BD), count)
    # Not the Python wrapper, whose checks take as long as a tenth of the walk.
    graph.search_c(
        len(queries_BD),
        faiss.swig_ptr(queries_BD),
        count,
        faiss.swig_ptr(scores_BC),
        faiss.swig_ptr(rows_BC),
        parameters,
    )
    return rows_BC


@lru_cache(maxsize=64)
def _graph_parameters(ef: int) -> Any:
    """Those of walks without a filter; FAISS only reads them, so that threads can share them."""
    return faiss.SearchParametersHNSW(efSearch=ef)


def new_lists(labels_LD: FloatArray, nlist: int, *, spherical: bool, seed: int) -> Any:
    """Inverted lists of the labels around k-means centroids.

    Args:
        labels_LD: float32 [L, D].
        nlist: Lists, at most L.
        spherical: Compare by inner product with centroids of length 1, otherwise by distance.
        seed: Of k-means.
    """
    width = labels_LD.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    quantizer = faiss.IndexFlat(width, metric)
    index = faiss.IndexIVFFlat(quantizer, width, nlist, metric)
    index.quantizer_trains_alone = 0
    index.cp.seed = seed % 2**31
    index.cp.spherical = spherical
    index.cp.niter = _KMEANS_ROUNDS
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _SAMPLES_PER_LIST
    # Matrix products may round differently with another number of threads.
    with one_thread():
        index.train(labels_LD)
        index.add(labels_LD)
    return index


def search_lists(
    lists: Any, queries_BD: FloatArray, count: int, nprobe: int, allowed_L: NDArray[np.bool_] | None
) -> IntArray:
    """int64 [B, count]: best rows of each query's `nprobe` lists; -1 where there are no more."""
    # A selector keeps FAISS from choosing lists by matrix products, whose rounding depends on the
    # size of the batch; a query's lists must not.
    everything = faiss.SearchParameters(sel=faiss.IDSelectorAll())
    nearness_BC, lists_BC = lists.quantizer.search(queries_BD, nprobe, params=everything)
    if lists.quantizer.metric_type != lists.metric_type:
        # Found by distance; what FAISS adds to the score of a code is the inner product.
        nearness_BC = rescore(queries_BD, _centroids(lists), lists_BC)
    parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector(allowed_L))
    scores_BC, rows_BC = new_results(len(queries_BD), count)
    # The Python wrapper of this takes no parameters.
    lists.search_preassigned_c(
        len(queries_BD),
        faiss.swig_ptr(queries_BD),
        count,
        faiss.swig_ptr(lists_BC),
        faiss.swig_ptr(nearness_BC),
        faiss.swig_ptr(scores_BC),
        faiss.swig_ptr(rows_BC),
        False,
        parameters,
    )
    return rows_BC


def _centroids(lists: Any) -> FloatArray:
    """float32 [C, D]: the middle of each list, without a copy."""
    quantizer, shape = faiss.downcast_index(lists.quantizer), (lists.nlist, lists.d)
    centroids_CD: FloatArray = faiss.rev_swig_ptr(quantizer.get_xb(), shape[0] * shape[1])
    return centroids_CD.reshape(shape)


def new_results(num_queries: int, count: int) -> tuple[FloatArray, IntArray]:
    """Where a search of FAISS writes scores and rows: float32 and int64, both [B, count]."""
    shape = num_queries, count
    return np.empty(shape, np.float32), np.empty(shape, np.int64)


def selector(allowed_L: NDArray[np.bool_] | None) -> Any:
    """What keeps FAISS from rows that are not allowed; None for no filter."""
    if allowed_L is None:
        return None
    return faiss.IDSelectorBitmap(np.packbits(allowed_L, bitorder="little"))


def write(index: Any, path: Path) -> None:
    """Writes an index, without vectors that `attach_labels` gave it.

    Raises:
        RuntimeError: If the file cannot be written, as FAISS has it.
    """
    is_bare = isinstance(index, faiss.IndexHNSWFlat)
    faiss.write_index(index, str(path), faiss.IO_FLAG_SKIP_STORAGE if is_bare else 0)


def read(path: Path, *, mmap: bool) -> Any:
    """Reads an index; with mmap its arrays stay in the file and are shared between processes.

    Raises:
        BundleError: If the file is not a sound FAISS index.
    """
    # The tables that are skipped are for codes compared by distance, which none here are.
    flags = faiss.IO_FLAG_SKIP_STORAGE | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    flags |= faiss.IO_FLAG_MMAP_IFC if mmap else 0
    try:
        with _reading, _limits(path.stat().st_size):
            return faiss.read_index(str(path), flags)
    except (OSError, RuntimeError, MemoryError) as error:
        # FAISS names a source line of its own first, then the reason.
        reason = re.sub(r"^.*\.\w+:\d+: (Error: )?", "", str(error))
        raise BundleError(path, f"not a sound FAISS index: {reason:.200}") from error


@contextmanager
def _limits(size_bytes: int) -> Iterator[None]:
    """Nothing in a file is longer than the file: a lie about lengths must not allocate memory.

    FAISS also makes tables out of product quantisers, of at most eight times the size of the file.
    """
    loops = faiss.get_deserialization_loop_limit()
    vector_bytes = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_loop_limit(size_bytes)
    faiss.set_deserialization_vector_byte_limit(_TABLE_SHARE * size_bytes)
    try:
        yield
    finally:
        faiss.set_deserialization_loop_limit(loops)
        faiss.set_deserialization_vector_byte_limit(vector_bytes)


def num_nodes(graph: Any) -> int:
    """Vectors that have a place in a graph: in a sound file, as many as the index counts."""
    return int(graph.hnsw.levels.size())


def is_spherical(lists: Any) -> bool:
    """Whether lists are found by inner product, otherwise by distance."""
    quantizer = getattr(lists, "quantizer", None)
    return quantizer is None or bool(quantizer.metric_type == faiss.METRIC_INNER_PRODUCT)


def has_centroids(lists: Any) -> bool:
    """Whether each list has a centroid of the lists' width, and nothing else finds them."""
    found = faiss.downcast_index(lists.quantizer)
    sizes = found.d, found.ntotal, found.code_size
    if not isinstance(found, faiss.IndexFlat) or sizes != (lists.d, lists.nlist, 4 * lists.d):
        return False
    return bool(found.codes.size() == found.ntotal * found.code_size)


def rows_in_lists(lists: Any) -> IntArray:
    """int64 [L]: the rows in all lists, one list after the other."""
    inverted = lists.invlists
    parts = [
        faiss.rev_swig_ptr(inverted.get_ids(i), inverted.list_size(i)).copy()
        for i in range(lists.nlist)
        if inverted.list_size(i)
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])
