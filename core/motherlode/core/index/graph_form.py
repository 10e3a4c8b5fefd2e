"""What a graph becomes on a GPU, where FAISS has cuVS: said without FAISS, for plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

# No more candidates are kept by cuVS once several blocks of threads share a query.
GRAPH_LIMIT = 1024
# There, the edges of a label and 32 candidates have 256 places; its sorting goes by 32.
_MOST_EDGES = 128
_STEP = 32
# Rows of vectors begin at multiples of 16 bytes.
_VALUES_ALIGNED = 4


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GraphForm:
    """The CAGRA graph in the place of an HNSW graph.

    Attributes:
        degree: Edges of each label.
        size_bytes: On the GPU: of the label embeddings in float32, and of the edges.
        refusal: Why it stays on the CPU all the same; None if it need not.
    """

    degree: int
    size_bytes: int
    refusal: str | None = None

    @classmethod
    def of(cls, num_neighbors: int, ef_search: int, *, num_labels: int, width: int) -> GraphForm:
        """That of a graph with these settings, over so many labels of this width."""
        # The lowest level of HNSW, which holds all labels, has twice `num_neighbors` edges a label.
        degree = min(_up(2 * num_neighbors, _STEP), _MOST_EDGES)
        refusal = None
        if ef_search > GRAPH_LIMIT:
            refusal = f"ef_search {ef_search} is above {GRAPH_LIMIT}, the limit on a GPU"
        elif max(ef_search, degree) * num_neighbors >= num_labels:
            refusal = f"{num_labels} labels are so few that a search compares every one"
        size_bytes = 4 * num_labels * (_up(width, _VALUES_ALIGNED) + degree)
        return cls(degree=degree, size_bytes=size_bytes, refusal=refusal)


def candidates_kept(ef_search: int, wanted: int) -> int:
    """The `itopk_size` of cuVS, a multiple of 32, for so many candidates wanted, at most 1,024."""
    return _up(max(ef_search, wanted), _STEP)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
