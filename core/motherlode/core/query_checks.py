"""Checks of a query batch at the boundary; past them a batch is trusted.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import InvalidQueryError
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Features,
    Queries,
    SparseQueries,
    TextQueries,
)

_KINDS: dict[type[Queries], str] = {
    TextQueries: "text",
    SparseQueries: "sparse",
    DenseQueries: "features",
    EmbeddingQueries: "embeddings",
}


def kind_of(queries: Queries) -> str:
    """`text`, `sparse`, `features` or `embeddings`, as the wire names them."""
    return _KINDS[type(queries)]


def check_queries(
    queries: Queries, *, kinds: tuple[str, ...], num_features: int, width: int
) -> None:
    """Refuses a batch that the model cannot answer.

    Raises:
        InvalidQueryError: For the first thing found wrong.
    """
    kind = kind_of(queries)
    if kind not in kinds:
        _fail("queries", f"one of {', '.join(kinds)}", kind)
    match queries:
        case TextQueries():
            _check_texts(queries.texts)
        case SparseQueries():
            check_sparse(queries, num_features)
        case DenseQueries(features_BF):
            _check_matrix("queries.features", features_BF, num_features)
        case _:
            _check_matrix("queries.embeddings", queries.embeddings_BD, width)
    if len(queries) == 0:
        _fail("queries", "at least 1 query", 0)


def check_sparse(queries: SparseQueries, num_features: int) -> None:
    """Refuses sparse queries that are not well formed, or of another number of features.

    Raises:
        InvalidQueryError: For the first thing found wrong.
    """
    field = "queries.sparse"
    if queries.num_features != num_features:
        _fail(f"{field}.num_features", str(num_features), queries.num_features)
    _check_array(f"{field}.indptr", queries.indptr, np.int64)
    _check_array(f"{field}.indices", queries.indices, np.int64)
    _check_array(f"{field}.values", queries.values, np.float32)
    _check_offsets(f"{field}.indptr", queries.indptr, len(queries.indices))
    if len(queries.values) != len(queries.indices):
        _fail(f"{field}.values.shape", f"[{len(queries.indices)}]", [len(queries.values)])
    if len(queries.indices):
        _check_indices(f"{field}.indices", queries, num_features)
    _check_finite(f"{field}.values", queries.values)


def features_too_large(features: Features) -> InvalidQueryError:
    """What to raise for features that a score would overflow with."""
    field, values = (
        ("queries.sparse.values", features.values)
        if isinstance(features, SparseQueries)
        else ("queries.features", features.features_BF)
    )
    expected = "values small enough for scores that are finite"
    return InvalidQueryError(field, expected=expected, actual=np.abs(values).max())


def _check_texts(texts: Sequence[object]) -> None:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            _fail(f"queries.text.texts[{i}]", "a text", type(text).__name__)


def _check_offsets(field: str, indptr: NDArray[np.int64], num_values: int) -> None:
    if len(indptr) == 0 or indptr[0] != 0:
        _fail(field, "0 first", indptr[0] if len(indptr) else "[]")
    if (indptr[1:] < indptr[:-1]).any():
        row = int(np.flatnonzero(indptr[1:] < indptr[:-1])[0])
        _fail(f"{field}[{row + 1}]", f"at least {indptr[row]}", indptr[row + 1])
    if indptr[-1] != num_values:
        _fail(field, f"{num_values} last, the number of indices", indptr[-1])


def _check_indices(field: str, queries: SparseQueries, num_features: int) -> None:
    indices = queries.indices
    if indices.min() < 0 or indices.max() >= num_features:
        place = int(np.flatnonzero((indices < 0) | (indices >= num_features))[0])
        _fail(f"{field}[{place}]", f"0 to {num_features - 1}", indices[place])
    falls = indices[1:] <= indices[:-1]
    starts = queries.indptr[1:-1]
    falls[starts[(starts > 0) & (starts < len(indices))] - 1] = False
    if falls.any():
        place = int(np.flatnonzero(falls)[0])
        expected = f"more than {indices[place]}, ascending within a query"
        _fail(f"{field}[{place + 1}]", expected, indices[place + 1])


def _check_matrix(field: str, matrix: NDArray[Any], width: int) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != width:
        _fail(f"{field}.shape", f"[queries, {width}]", list(matrix.shape))
    if matrix.dtype != np.float32:
        _fail(f"{field}.dtype", "float32", matrix.dtype)
    _check_finite(field, matrix)


def _check_array(field: str, array: NDArray[Any], dtype: type) -> None:
    if array.ndim != 1:
        _fail(f"{field}.shape", "one axis", list(array.shape))
    if array.dtype != dtype:
        _fail(f"{field}.dtype", np.dtype(dtype).name, array.dtype)


def _check_finite(field: str, array: NDArray[Any]) -> None:
    # The sum of squares of finite values is finite, unless they are huge: one look at each value.
    if math.isfinite(np.vdot(array, array)):
        return
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(axis) for axis in np.argwhere(~finite)[0])
        where = ", ".join(map(str, place))
        _fail(f"{field}[{where}]", "a finite number", array[place])


def _fail(field: str, expected: str, actual: object) -> None:
    raise InvalidQueryError(field, expected=expected, actual=actual)
