"""A batch of queries in the forms that the wire knows, ready to be cut into parts.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from motherlode.clients.errors import InvalidArgumentError
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["DenseBatch", "QueryBatch", "SparseBatch", "TextBatch", "query_batch"]

_DTYPES = {
    np.dtype("<f4"): pb.DATA_TYPE_FLOAT32,
    np.dtype("<f2"): pb.DATA_TYPE_FLOAT16,
}

_TEXT_OVERHEAD_BYTES = 6  # a field tag and the longest length in front of a text


@final
@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Queries as texts."""

    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sizes_B(self) -> NDArray[np.int64]:
        """Bytes of each query on the wire."""
        return np.array([len(text.encode()) + _TEXT_OVERHEAD_BYTES for text in self.texts])

    def rows(self, start: int, stop: int) -> TextBatch:
        """Queries start to stop, stop excluded."""
        return TextBatch(self.texts[start:stop])

    def fill(self, request: pb.TopKRequest) -> None:
        """Write the queries into a request."""
        request.text.texts.extend(self.texts)


@final
@dataclass(frozen=True, slots=True, eq=False)
class SparseBatch:
    """Queries as sparse features in compressed rows.

    Attributes:
        indptr: int64 [B + 1], offsets of the rows, indptr[0] = 0.
        indices: int64, feature ids, ascending within a row.
        values: float32.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def sizes_B(self) -> NDArray[np.int64]:
        """Bytes of each query on the wire."""
        per_value = self.indices.itemsize + self.values.itemsize
        return self.indptr.itemsize + per_value * np.diff(self.indptr)

    def rows(self, start: int, stop: int) -> SparseBatch:
        """Queries start to stop, stop excluded; values are views."""
        first, last = self.indptr[start], self.indptr[stop]
        return SparseBatch(
            self.indptr[start : stop + 1] - first, self.indices[first:last], self.values[first:last]
        )

    def fill(self, request: pb.TopKRequest) -> None:
        """Write the queries into a request."""
        request.sparse.indptr = self.indptr.astype("<i8", copy=False).tobytes()
        request.sparse.indices = self.indices.astype("<i8", copy=False).tobytes()
        request.sparse.values = self.values.astype("<f4", copy=False).tobytes()


@final
@dataclass(frozen=True, slots=True, eq=False)
class DenseBatch:
    """Queries as rows of a matrix: float32 or float16 [B, F or D], little-endian."""

    kind: Literal["features", "embeddings"]
    matrix: NDArray[Any]

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def sizes_B(self) -> NDArray[np.int64]:
        """Bytes of each query on the wire."""
        return np.full(len(self), self.matrix.itemsize * self.matrix.shape[1], np.int64)

    def rows(self, start: int, stop: int) -> DenseBatch:
        """Queries start to stop, stop excluded; a view."""
        return DenseBatch(self.kind, self.matrix[start:stop])

    def fill(self, request: pb.TopKRequest) -> None:
        """Write the queries into a request."""
        tensor = request.features if self.kind == "features" else request.embeddings
        tensor.dtype = _DTYPES[self.matrix.dtype]
        tensor.shape.extend(self.matrix.shape)
        tensor.data = self.matrix.tobytes()


QueryBatch = TextBatch | SparseBatch | DenseBatch


def query_batch(
    queries: Sequence[str] | QueryBatch | None = None,
    *,
    embeddings: ArrayLike | None = None,
    features: ArrayLike | None = None,
    sparse: Any = None,
) -> QueryBatch:
    """A batch of at least one query, checked for form; give exactly one argument.

    Values (a NaN, a wrong width) are left to the server, which knows the model.

    Args:
        queries: Texts, or a batch made before.
        embeddings: [B, D], as the model's encoder would give them; sent as float32, float16 as
            it is.
        features: [B, F], dense features; sent likewise.
        sparse: Sparse features: a SciPy sparse matrix, or the three arrays `(indptr, indices,
            values)` of compressed rows, with ascending indices in each row.

    Raises:
        InvalidArgumentError: If not exactly one argument is given, or it has the wrong form.
    """
    given = [value is not None for value in (queries, embeddings, features, sparse)]
    if sum(given) != 1:
        raise InvalidArgumentError.of_field(
            "queries",
            expected="exactly one of queries, embeddings, features, sparse",
            actual=f"{sum(given)} of them",
        )
    batch = _batch_of(queries, embeddings, features, sparse)
    if len(batch) == 0:
        raise InvalidArgumentError.of_field("queries", expected="at least one query", actual="none")
    return batch


def _batch_of(
    queries: Sequence[str] | QueryBatch | None,
    embeddings: ArrayLike | None,
    features: ArrayLike | None,
    sparse: Any,
) -> QueryBatch:
    if isinstance(queries, TextBatch | SparseBatch | DenseBatch):
        return queries
    if queries is not None:
        return _text_batch(queries)
    if embeddings is not None:
        return DenseBatch("embeddings", _matrix("queries.embeddings", embeddings))
    if features is not None:
        return DenseBatch("features", _matrix("queries.features", features))
    return _sparse_batch(sparse)


def _text_batch(texts: Sequence[str]) -> TextBatch:
    if isinstance(texts, str | bytes):
        raise InvalidArgumentError.of_field(
            "queries", expected="a list of texts", actual="one text; put it in a list"
        )
    texts = list(texts)
    for i, text in enumerate(texts):
        _check_text(f"queries.text.texts[{i}]", text)
    return TextBatch(texts)


def _check_text(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidArgumentError.of_field(field, expected="text", actual=type(text).__name__)
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError.of_field(
            field, expected="Unicode text", actual=f"a lone surrogate at position {error.start}"
        ) from error


def _matrix(field: str, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim != 2:
        raise InvalidArgumentError.of_field(
            f"{field}.shape", expected="two dimensions [queries, width]", actual=array.shape
        )
    if array.dtype.kind not in "fiu":
        raise InvalidArgumentError.of_field(
            f"{field}.dtype", expected="real numbers", actual=array.dtype
        )
    dtype = "<f2" if array.dtype == np.float16 else "<f4"
    return np.ascontiguousarray(array, np.dtype(dtype))


def _sparse_batch(sparse: Any) -> SparseBatch:
    if hasattr(sparse, "tocsr"):
        # SciPy's own; `sorted_indices` copies only if they are not sorted yet.
        rows = sparse.tocsr().sorted_indices()
        sparse = rows.indptr, rows.indices, rows.data
    try:
        indptr, indices, values = sparse
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError.of_field(
            "queries.sparse",
            expected="a SciPy sparse matrix or (indptr, indices, values)",
            actual=type(sparse).__name__,
        ) from error
    batch = SparseBatch(
        np.asarray(indptr, np.int64), np.asarray(indices, np.int64), np.asarray(values, np.float32)
    )
    _check_rows(batch)
    return batch


def _check_rows(batch: SparseBatch) -> None:
    indptr, indices, values = batch.indptr, batch.indices, batch.values
    if not indptr.ndim == indices.ndim == values.ndim == 1 or len(indices) != len(values):
        raise InvalidArgumentError.of_field(
            "queries.sparse",
            expected="one-dimensional arrays, as many indices as values",
            actual=f"shapes {indptr.shape}, {indices.shape}, {values.shape}",
        )
    if (
        len(indptr) == 0
        or indptr[0] != 0
        or indptr[-1] != len(indices)
        or np.any(np.diff(indptr) < 0)
    ):
        raise InvalidArgumentError.of_field(
            "queries.sparse.indptr",
            expected=f"ascending offsets from 0 to {len(indices)}",
            actual=np.array2string(indptr, threshold=6),
        )
