"""What an index of FAISS says about itself, and whether that is what was expected of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from motherlode.core.errors import BundleError
from motherlode.core.index.faiss import faiss

# What the code of FAISS goes by while it searches. Where an index has none of a name, neither has
# another of its class.
_FORM = (
    "d",
    "metric_type",
    "code_size",
    "nlist",
    "by_residual",
    "centered",
    "qb",
    "bbs",
    "ksub",
    "M",
    "M2",
    "nbits",
    "polysemous_ht",
    "sq.d",
    "sq.qtype",
    "sq.code_size",
    "sq.bits",
    "pq.d",
    "pq.M",
    "pq.nbits",
    "pq.dsub",
    "pq.ksub",
    "pq.code_size",
    "rabitq.d",
    "rabitq.code_size",
    "rabitq.nb_bits",
    "rabitq.metric_type",
    "invlists.nlist",
    "invlists.code_size",
    "invlists.n_per_block",
    "invlists.block_size",
)
# Lists of fast-scan codes are filled up to a multiple of this.
_BLOCK = 32


@final
@dataclass(frozen=True, slots=True)
class Facts:
    """What an index says about itself.

    Attributes:
        family: `Flat`, `HNSW`, `IVF`, `Codes`, or the name of a class that Motherlode does not
            build.
        width: Width of its vectors.
        num_vectors: Vectors it tells apart; none for an index from `new_flat`.
        size_bytes: Memory of its own structure, without vectors from `attach_labels`.
        is_similarity: Whether it compares by inner product, otherwise by distance.
        structure: Factory string, such as `HNSW32,Flat`.
    """

    family: str
    width: int
    num_vectors: int
    size_bytes: int
    is_similarity: bool
    structure: str


def facts_of(index: Any) -> Facts:
    """What an index from here, or from a file, says about itself."""
    family, size_bytes, structure = type(index).__name__, 0, "Flat"
    if isinstance(index, faiss.IndexHNSW):
        family, structure = (
            "HNSW",
            f"HNSW{index.hnsw.nb_neighbors(1)},{_code_name(storage_of(index))}",
        )
        size_bytes = _graph_bytes(index.hnsw) + _storage_bytes(index)
    elif isinstance(index, faiss.IndexIVF):
        family, structure = "IVF", f"IVF{index.nlist},{_code_name(index)}"
        size_bytes = _list_bytes(index) + 4 * index.d * index.nlist + _table_bytes(index)
    elif isinstance(index, faiss.IndexFlat):
        family = "Flat"
    elif (code := _code_name(index)) != "Flat":
        family, structure = "Codes", code
        size_bytes = index.codes.size() + _table_bytes(index)
    is_similarity = index.metric_type == faiss.METRIC_INNER_PRODUCT
    return Facts(family, index.d, index.ntotal, size_bytes, is_similarity, structure)


def _code_name(index: Any) -> str:
    """What an index holds of a vector, such as `SQ8`."""
    if hasattr(index, "sq"):
        is_fp16 = index.sq.qtype == faiss.ScalarQuantizer.QT_fp16
        return "SQfp16" if is_fp16 else "SQ8"
    if hasattr(index, "pq"):
        return f"PQ{index.pq.M}" if index.pq.nbits == 8 else f"PQ{index.pq.M}x4fs"
    return "RaBitQ" if hasattr(index, "rabitq") else "Flat"


def _graph_bytes(hnsw: Any) -> int:
    edges, offsets, levels = (x.size() for x in (hnsw.neighbors, hnsw.offsets, hnsw.levels))
    return int(4 * edges + 8 * offsets + 4 * levels)


def storage_of(graph: Any) -> Any:
    """The index that holds the codes of a graph; None for a graph just read without vectors."""
    return graph.storage and faiss.downcast_index(graph.storage)


def _storage_bytes(graph: Any) -> int:
    storage = storage_of(graph)
    return int(storage.codes.size()) + _table_bytes(storage) if hasattr(storage, "sq") else 0


def _list_bytes(lists: Any) -> int:
    if not isinstance(lists, faiss.IndexIVFFastScan):
        return int((lists.code_size + 8) * lists.ntotal)
    blocks = sum(-(-lists.invlists.list_size(i) // _BLOCK) for i in range(lists.nlist))
    return int(blocks * _BLOCK * lists.M2 // 2 + 8 * lists.ntotal)


def _table_bytes(index: Any) -> int:
    """Memory of what codes are decoded by."""
    if hasattr(index, "pq"):
        return int(4 * index.pq.centroids.size())
    return int(4 * index.sq.trained.size()) if hasattr(index, "sq") else 0


def expect(path: Path, index: Any, *, family: str, width: int, num_vectors: int) -> Facts:
    """Refuses an index of another family or size, or one that was never trained.

    Raises:
        BundleError: If it is.
    """
    facts = facts_of(index)
    for name, actual, expected in (
        ("family", facts.family, family),
        ("width", facts.width, width),
        ("number of vectors", facts.num_vectors, num_vectors),
        ("metric", facts.is_similarity or family == "IVF", True),
        ("is_trained", bool(index.is_trained), True),
    ):
        if actual != expected:
            raise BundleError(path, f"{name} is {actual}, expected {expected}")
    return facts


def expect_form(path: Path, index: Any, model: Any) -> None:
    """Refuses an index that is not put together as the model, an index of no vectors, is.

    Raises:
        BundleError: If it is another class, or a size or setting by which FAISS finds its way
            through the codes differs.
    """
    names = type(index).__name__, type(model).__name__
    structures = facts_of(index).structure, facts_of(model).structure
    if names[0] != names[1] or structures[0] != structures[1]:
        raise BundleError(path, f"holds {structures[0]}, expected {structures[1]}")
    for name in _FORM:
        actual, expected = _value(index, name), _value(model, name)
        if actual != expected:
            raise BundleError(path, f"{name} is {actual}, expected {expected}")
    for name, size, expected in _array_sizes(index):
        if size != expected:
            raise BundleError(path, f"length of {name} is {size}, expected {expected}")


def _value(index: Any, name: str) -> Any:
    value = index
    for part in name.split("."):
        value = getattr(value, part, None)
        if part == "invlists" and value is not None:
            value = faiss.downcast_InvertedLists(value)
    return value


def _array_sizes(index: Any) -> list[tuple[str, int, int]]:
    """Names, lengths and right lengths of the arrays by which codes are read."""
    sizes, width = [], index.d
    if hasattr(index, "sq"):
        is_fp16 = index.sq.qtype == faiss.ScalarQuantizer.QT_fp16
        sizes.append(("sq.trained", index.sq.trained.size(), 0 if is_fp16 else 2 * width))
    if hasattr(index, "pq"):
        sizes.append(("pq.centroids", index.pq.centroids.size(), width << index.pq.nbits))
    if hasattr(index, "center"):
        sizes.append(("center", index.center.size(), width))
    if isinstance(index, faiss.IndexPQFastScan):
        padded = -(-index.ntotal // _BLOCK) * _BLOCK
        sizes.append(("codes", index.codes.size(), padded * index.M2 // 2))
    elif hasattr(index, "codes"):
        sizes.append(("codes", index.codes.size(), index.ntotal * index.code_size))
    return sizes
