"""What every index promises, and the part of a search that is the same for all.

Shapes: B queries, L labels in all, A labels allowed, C candidates, K hits, D embedding width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import InvalidQueryError
from motherlode.core.index.config import IndexConfig, most_candidates
from motherlode.core.index.facts import facts_of
from motherlode.core.index.faiss import (
    FAISS_VERSION,
    apply_index_threads,
    top_inner_products,
    write,
)
from motherlode.core.index.filter import LabelFilter
from motherlode.core.index.rescoring import (
    best_by_scan,
    best_of,
    disagreement,
    largest_norm,
    rescore,
)
from motherlode.core.index.seal import seal
from motherlode.core.queries import FloatArray, IntArray
from motherlode.core.topk import TopK

# Candidates above k: enough that the k-th hit is rarely as good as what was left out.
MARGIN = 8
# Up to so many queries, looking at every label twice costs less than a matrix product.
_FEW_QUERIES = 2
_BLOCK_LABELS = 1 << 15
_LARGEST_SCORE = 1e38


@final
@dataclass(frozen=True, slots=True, eq=False)
class LabelEmbeddings:
    """Label embeddings that were checked once.

    Attributes:
        labels_LD: float32 [L, D], a plain C-contiguous array, finite; L and D at least 1.
        norm: Length of the longest.
    """

    labels_LD: FloatArray
    norm: float

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.labels_LD)

    @property
    def width(self) -> int:
        """D."""
        return int(self.labels_LD.shape[1])

    @classmethod
    def checked(cls, labels_LD: FloatArray) -> LabelEmbeddings:
        """Takes an array, without a copy if it can be.

        Raises:
            ValueError: If it is not float32 [L, D], not finite or empty.
        """
        if labels_LD.ndim != 2 or labels_LD.dtype != np.float32 or 0 in labels_LD.shape:
            actual = f"{labels_LD.dtype} {list(labels_LD.shape)}"
            raise ValueError(f"label embeddings: expected float32 [labels, width], got {actual}")
        # A memmap does its bookkeeping on every slice; the array behind it does not.
        plain_LD = np.ascontiguousarray(labels_LD).view(np.ndarray)
        norm = largest_norm(plain_LD)
        if not math.isfinite(norm):
            raise ValueError("label embeddings: expected finite values, got NaN or infinity")
        return cls(plain_LD, norm)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """Candidates of each query.

    Attributes:
        rows_BC: int64 [B, C], each label once in a row; -1 where there is no candidate.
        limit_B: float64 [B]: no label that was left out can score above it. None if such a label
            may score anything, as approximate indexes have it.
    """

    rows_BC: IntArray
    limit_B: NDArray[np.float64] | None = None


class LabelIndex(ABC):
    """Finds the labels whose embeddings have the highest inner product with a query's.

    All indexes keep this contract:

    - Scores are float32 inner products with `labels_LD`, of whatever lengths; they are not cosines.
    - Hits are best first, ties by label. Each query has min(k, labels allowed) hits, and never a
      label that the filter keeps out.
    - Labels, order and the bits of the scores of a query depend on nothing but the query, k and the
      filter: not on the batch, the place in it, the number of threads or other searches.
    - `ExactIndex` gives the best labels; the others may miss some, and are exact where an exact
      answer is cheap: filters that leave few labels, very many hits, a query of zeros.
    - Searches may run in several threads at once.

    Attributes:
        kind: Name of the family in configs.
        config: As it was built.
        num_labels: L.
        width: D.
        faiss_version: Release of FAISS at work.
    """

    kind: ClassVar[str]
    faiss_version: ClassVar[str] = FAISS_VERSION

    def __init__(
        self,
        config: IndexConfig,
        index: Any,
        labels: LabelEmbeddings,
        *,
        keep_alive: object = None,
    ) -> None:
        """Takes finished parts; use `build_index` or `load_index`.

        Args:
            config: As it was built.
            index: The FAISS index, or None for a family that has none.
            labels: Kept, not copied, and not to be changed any more.
            keep_alive: What the FAISS index points at without owning it.
        """
        self.config = config
        self.num_labels, self.width = labels.labels_LD.shape
        self._index = index
        self._keep_alive = keep_alive
        self._labels_LD = labels.labels_LD
        self._norm = labels.norm
        self._largest_value = _LARGEST_SCORE / (max(labels.norm, 1.0) * self.width**0.5)

    @property
    def factory(self) -> str:
        """Family and structure in FAISS's notation, such as `HNSW32,Flat`."""
        return facts_of(self._index).structure

    @property
    def predicted_bytes(self) -> int:
        """Memory that the index needs beside `labels_LD`, in bytes."""
        return facts_of(self._index).size_bytes

    @property
    def is_exact(self) -> bool:
        """Whether it misses no label, wherever it searches."""
        return self.config.kind == "exact"

    @property
    def may_miss(self) -> float:
        """Share of a bundle's golden hits, 0 to 1, that it may miss: it is not what gave them."""
        return 0.0

    @property
    def gpu_bytes(self) -> int:
        """Memory that it holds on GPUs, in bytes, without the buffers of FAISS."""
        return 0

    @final
    def num_candidates(self, k: int) -> int:
        """The most labels that a search for k hits looks at closely, for each query."""
        return int(min(most_candidates(self.config, k) + MARGIN, self.num_labels))

    @property
    def labels(self) -> LabelEmbeddings:
        """What it searches; not to be changed."""
        return LabelEmbeddings(self._labels_LD, self._norm)

    @final
    def configured(self, config: IndexConfig) -> Self:
        """The same index, searched with other settings; both share all that was built.

        Args:
            config: As it was built, but for settings that matter at search time alone.
        """
        other = copy(self)
        other.config = config
        return other

    @abstractmethod
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        """At least `count` candidates of each query where they can be found.

        Args:
            queries_BD: float32 [B, D], checked; B is at least 1.
            count: 1 to the number of labels allowed.
            allowed: int64 [A], ascending, the only rows to propose; None for all.
        """

    @final
    def search(
        self,
        queries_BD: FloatArray,
        k: int,
        *,
        filter: LabelFilter | None = None,  # noqa: A002 - the name on the wire
    ) -> TopK:
        """The best labels of each query, as the class promises.

        Args:
            queries_BD: float32 [B, D], finite; B may be 0.
            k: Hits wanted, at least 1; may be more than there are labels.
            filter: Labels to allow or to deny.

        Raises:
            InvalidQueryError: For queries of another shape or dtype, or with NaN or infinite values
                or values so large that a score would overflow; for k below 1; for a filter that
                names a label that is not there.
        """
        self._check(queries_BD, k)
        allowed = None if filter is None else filter.allowed_rows(self.num_labels)
        count = min(k, self.num_labels if allowed is None else len(allowed))
        num_queries = len(queries_BD)
        if num_queries * count == 0:
            nothing = np.zeros(num_queries, np.int64)
            return TopK(np.empty(0, np.int64), np.empty(0, np.float32), nothing)
        apply_index_threads()
        queries_BD = np.ascontiguousarray(queries_BD)
        rows_BK, scores_BK = self._best(queries_BD, count, allowed)
        return TopK(rows_BK.ravel(), scores_BK.ravel(), np.full(num_queries, count, np.int64))

    @final
    def save(self, path: Path) -> None:
        """Writes the index to a file, without the label embeddings.

        Raises:
            OSError: If the file cannot be written.
            RuntimeError: Likewise, as FAISS has it.
        """
        self._write(path)
        seal(path, self._labels_LD)

    def _write(self, path: Path) -> None:
        write(self._index, path)

    def _best(
        self, queries_BD: FloatArray, count: int, allowed: IntArray | None
    ) -> tuple[IntArray, FloatArray]:
        shortlist = self._propose(queries_BD, count, allowed)
        scores_BC = rescore(queries_BD, self._labels_LD, shortlist.rows_BC)
        rows_BK, scores_BK = best_of(shortlist.rows_BC, scores_BC, count)
        for i in self._unsettled(queries_BD, scores_BK[:, -1], shortlist):
            rows_BK[i], scores_BK[i] = best_by_scan(queries_BD[i], self._labels_LD, allowed, count)
        return rows_BK, scores_BK

    def _unsettled(
        self, queries_BD: FloatArray, last_B: FloatArray, shortlist: Shortlist
    ) -> list[int]:
        """Queries with too few candidates, or whose last hit may tie with what was left out."""
        if shortlist.limit_B is not None:
            return [int(i) for i in np.flatnonzero(last_B <= shortlist.limit_B)]
        # All labels score 0 for a query of zeros, and the first of them are the answer.
        return [
            i
            for i, last in enumerate(last_B.tolist())
            if last == -math.inf or (last == 0 and not queries_BD[i].any())
        ]

    def _scan(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        """Candidates out of every allowed label, with the limit above which none was left out."""
        num_allowed = self.num_labels if allowed is None else len(allowed)
        margin = MARGIN + count // 8
        if num_allowed <= count + margin:
            rows = np.arange(num_allowed) if allowed is None else allowed
            everything = np.full(len(queries_BD), -np.inf)
            return Shortlist(np.tile(rows, (len(queries_BD), 1)), everything)
        if len(queries_BD) <= _FEW_QUERIES:
            found = [best_by_scan(q, self._labels_LD, allowed, count)[0] for q in queries_BD]
            return Shortlist(np.stack(found), np.full(len(queries_BD), -np.inf))
        scores_BC, rows_BC = self._scan_in_blocks(queries_BD, count + margin, allowed)
        limit_B = scores_BC[:, -1] + disagreement(queries_BD, self._norm)
        return Shortlist(rows_BC, limit_B)

    def _scan_in_blocks(
        self, queries_BD: FloatArray, count: int, allowed: IntArray | None
    ) -> tuple[FloatArray, IntArray]:
        """FAISS's best `count` of the allowed labels, best first."""
        if allowed is None:
            return top_inner_products(queries_BD, self._labels_LD, count)
        scores, rows = [], []
        for i in range(0, len(allowed), _BLOCK_LABELS):
            block = allowed[i : i + _BLOCK_LABELS]
            scores_BC, places_BC = top_inner_products(
                queries_BD, self._labels_LD.take(block, axis=0), min(count, len(block))
            )
            scores.append(scores_BC)
            rows.append(block.take(places_BC))
        rows_BC, scores_BC = best_of(
            np.concatenate(rows, axis=1), np.concatenate(scores, axis=1), count
        )
        return scores_BC, rows_BC

    def _check(self, queries_BD: FloatArray, k: int) -> None:
        if queries_BD.ndim != 2 or queries_BD.shape[1] != self.width:
            expected = f"[queries, {self.width}]"
            _fail("queries.embeddings.shape", expected, list(queries_BD.shape))
        if queries_BD.dtype != np.float32:
            _fail("queries.embeddings.dtype", "float32", queries_BD.dtype)
        if k < 1:
            _fail("k", "at least 1", k)
        # NaN is not at most anything, so one comparison finds all that is wrong.
        if len(queries_BD) and not np.abs(queries_BD).max() <= self._largest_value:
            row, column = np.argwhere(~(np.abs(queries_BD) <= self._largest_value))[0]
            expected = f"finite values up to {self._largest_value:.3g}"
            _fail(f"queries.embeddings[{row}, {column}]", expected, queries_BD[row, column])


def _fail(field: str, expected: str, actual: object) -> None:
    raise InvalidQueryError(field, expected=expected, actual=actual)
