"""Golden queries: a few queries with the answers that a bundle gave when it was made.

A loaded bundle must give these answers again. That finds what no digest can: parts that do not
belong together, and a library or machine that computes something else.

Shapes: B queries, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from motherlode.core.errors import BundleError
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    FloatArray,
    IntArray,
    Queries,
    SparseQueries,
    TextQueries,
)
from motherlode.core.topk import TopK

MAX_QUERIES = 32

# Far above what other hardware or another BLAS changes, far below what a wrong part would.
TOLERANCE = 1e-4


@final
@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Queries and what they must give.

    Attributes:
        queries: One to 32 queries of any kind.
        embeddings_BD: float32 [B, D], their embeddings.
        top: Their best hits.
        k: Hits asked for.
    """

    queries: Queries
    embeddings_BD: FloatArray
    top: TopK
    k: int

    def __post_init__(self) -> None:
        lengths = {len(self.queries), len(self.embeddings_BD), len(self.top)}
        if len(lengths) != 1 or not 1 <= len(self.queries) <= MAX_QUERIES:
            raise ValueError(f"expected 1 to {MAX_QUERIES} queries with answers, got {lengths}")

    def embedding_difference(self, embeddings_BD: FloatArray) -> str | None:
        """What is wrong with float32 [B, D] new embeddings of the queries, or None."""
        if embeddings_BD.shape != self.embeddings_BD.shape:
            return f"embeddings {embeddings_BD.shape}, expected {self.embeddings_BD.shape}"
        allowed_B = TOLERANCE * np.maximum(1.0, np.abs(self.embeddings_BD).max(axis=1))
        largest_B = np.abs(embeddings_BD - self.embeddings_BD).max(axis=1)
        wrong = np.flatnonzero(~(largest_B <= allowed_B))
        if len(wrong) == 0:
            return None
        return f"the embedding of query {wrong[0]} is off by up to {largest_B[wrong[0]]:.2g}"

    def hit_difference(self, top: TopK, *, may_miss: float = 0.0) -> str | None:
        """What is wrong with new hits of the queries, or None.

        Scores must be the same, and so must the labels but for those whose scores tie.

        Args:
            top: The new hits.
            may_miss: Share, 0 to 1, of all hits that may be missing; above 0, better ones may have
                come. The scores of labels that are there must be the same all the same.
        """
        if not np.array_equal(top.counts, self.top.counts):
            return f"{top.counts.tolist()} hits, expected {self.top.counts.tolist()}"
        if may_miss > 0:
            return self._loss(top, may_miss)
        for i in range(len(top)):
            difference = _row_difference(self.top.row(i), top.row(i))
            if difference is not None:
                return f"query {i}: {difference}"
        return None

    def _loss(self, top: TopK, may_miss: float) -> str | None:
        num_missing = 0
        for i in range(len(top)):
            (labels, scores), (new_labels, new_scores) = self.top.row(i), top.row(i)
            allowed = 2 * TOLERANCE * float(np.abs(scores).max(initial=0.0))
            moved = _moved_labels(self.top.row(i), top.row(i), allowed)
            if len(moved):
                return f"query {i}: label {moved[0]} has the score of another label"
            # Pushed out by better ones is not missing.
            is_gone = ~np.isin(labels, new_labels)
            num_missing += int((is_gone & (scores > new_scores[-1:] + allowed)).sum())
        num_hits = len(self.top.labels)
        if num_missing > may_miss * num_hits:
            return f"{num_missing} of {num_hits} hits are missing, and {may_miss:.0%} may be"
        return None

    def save(self, path: Path) -> None:
        """Writes an Arrow file with a row for each query."""
        kind, num_features, columns = _query_columns(self.queries)
        offsets = self.top.offsets
        columns |= {
            "embedding": _list_of_rows(self.embeddings_BD),
            "labels": _lists(offsets, self.top.labels),
            "scores": _lists(offsets, self.top.scores),
        }
        metadata = {"queries": kind, "num_features": str(num_features), "k": str(self.k)}
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        batch = batch.replace_schema_metadata(metadata)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)

    @classmethod
    def load(cls, path: Path) -> Golden:
        """What `save` wrote.

        Raises:
            BundleError: If the file is no such thing.
        """
        try:
            with pa.OSFile(str(path), "rb") as source:
                return cls._of(pa.ipc.open_file(source).read_all())
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise BundleError(path, f"not a file of golden queries: {error}") from error

    @classmethod
    def _of(cls, table: Any) -> Golden:
        raw_metadata = table.schema.metadata or {}
        metadata = {name.decode(): value.decode() for name, value in raw_metadata.items()}
        embeddings_BD = _matrix(table, "embedding")
        offsets, labels = _flat(table, "labels", np.int64)
        scores = _flat(table, "scores", np.float32)[1]
        queries = _queries(metadata["queries"], int(metadata["num_features"]), table, embeddings_BD)
        return cls(
            queries, embeddings_BD, TopK(labels, scores, np.diff(offsets)), int(metadata["k"])
        )


def _row_difference(
    expected: tuple[IntArray, FloatArray], actual: tuple[IntArray, FloatArray]
) -> str | None:
    (labels, scores), (new_labels, new_scores) = expected, actual
    if len(labels) == 0:
        return None
    allowed = TOLERANCE * float(np.abs(scores).max())
    off = np.abs(new_scores - scores)
    if not (off <= allowed).all():
        i = int(np.flatnonzero(~(off <= allowed))[0])
        return f"score {i} is {new_scores[i]:.7g}, expected {scores[i]:.7g}"
    # The same scores in the same order leave two ways to differ: labels that changed places, and
    # a label pushed out by one that ties with the last. Twice the tolerance, as both sides move.
    moved = _moved_labels(expected, actual, 2 * allowed)
    if len(moved):
        return f"label {moved[0]} has the score of another label"
    lost = labels[~np.isin(labels, new_labels) & (scores - scores[-1] > 2 * allowed)]
    if len(lost):
        return f"label {lost[0]} is missing"
    return None


def _moved_labels(
    expected: tuple[IntArray, FloatArray], actual: tuple[IntArray, FloatArray], allowed: float
) -> IntArray:
    """Labels of both whose scores are further apart than is allowed."""
    (labels, scores), (new_labels, new_scores) = expected, actual
    common, places, new_places = np.intersect1d(labels, new_labels, True, return_indices=True)
    moved: IntArray = common[~(np.abs(new_scores[new_places] - scores[places]) <= allowed)]
    return moved


def _query_columns(queries: Queries) -> tuple[str, int, dict[str, Any]]:
    match queries:
        case TextQueries():
            return "text", 0, {"text": pa.array(list(queries.texts), pa.large_string())}
        case SparseQueries(indptr, indices, values, num_features):
            columns = {"indices": _lists(indptr, indices), "values": _lists(indptr, values)}
            return "sparse", num_features, columns
        case DenseQueries(features_BF):
            return "features", features_BF.shape[1], {"features": _list_of_rows(features_BF)}
        case _:
            return "embeddings", 0, {}


def _queries(kind: str, num_features: int, table: Any, embeddings_BD: FloatArray) -> Queries:
    match kind:
        case "text":
            return TextQueries(table.column("text").to_pylist())
        case "sparse":
            indptr, indices = _flat(table, "indices", np.int64)
            values = _flat(table, "values", np.float32)[1]
            return SparseQueries(indptr, indices, values, num_features)
        case "features":
            return DenseQueries(_matrix(table, "features"))
        case "embeddings":
            return EmbeddingQueries(embeddings_BD)
    raise ValueError(f"unknown kind of query {kind!r}")


def _lists(offsets: IntArray, values: Any) -> Any:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))


def _list_of_rows(matrix: FloatArray) -> Any:
    rows, columns = matrix.shape
    return _lists(np.arange(rows + 1, dtype=np.int64) * columns, np.ravel(matrix))


def _flat(table: Any, name: str, dtype: type) -> tuple[IntArray, Any]:
    # Copies: PyTorch warns about arrays that cannot be written to.
    column = table.column(name).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    offsets = np.array(column.offsets.to_numpy(), np.int64)
    values = np.array(column.values.to_numpy(zero_copy_only=False))
    if values.dtype != dtype:
        raise ValueError(f"column {name}: expected {np.dtype(dtype)}, got {values.dtype}")
    return offsets, values


def _matrix(table: Any, name: str) -> FloatArray:
    values: FloatArray = _flat(table, name, np.float32)[1]
    return values.reshape(table.num_rows, -1)
