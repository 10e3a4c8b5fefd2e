"""Checks of a request that every protocol needs: the server's limits, and the size of the answer.

`RequestTooLargeError` is raised where smaller requests would be answered, `InvalidQueryError` where
the value itself is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import NoReturn

from motherlode.core.errors import InvalidQueryError, RequestTooLargeError
from motherlode.core.index import LabelFilter
from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Queries,
    SparseQueries,
    TextQueries,
)
from motherlode.core.retriever import Retriever
from motherlode.server.config import ServerConfig


def largest_k(retriever: Retriever, config: ServerConfig) -> int:
    """The most labels that a query of this version may ask for."""
    return min(config.max_k, len(retriever.labels))


def check_k(k: int, retriever: Retriever, config: ServerConfig) -> None:
    """Refuses a k below 1, or above `largest_k`.

    Raises:
        InvalidQueryError: If so.
    """
    limit = largest_k(retriever, config)
    if not 1 <= k <= limit:
        fail("k", f"1 to {limit}", k)


def check_num_queries(num_queries: int, config: ServerConfig) -> None:
    """Refuses a batch without queries, and one with more than a call may have.

    Raises:
        InvalidQueryError: If there is none.
        RequestTooLargeError: If there are too many.
    """
    if num_queries < 1:
        fail("queries", "at least 1 query", 0)
    if num_queries > config.max_queries_per_call:
        expected = f"at most {config.max_queries_per_call} queries a call"
        raise RequestTooLargeError("queries", expected=expected, actual=num_queries)


def check_texts(texts: Sequence[str], config: ServerConfig) -> TextQueries:
    """The texts as queries.

    Raises:
        InvalidQueryError: If there is none, or one is too long.
        RequestTooLargeError: If there are too many.
    """
    check_num_queries(len(texts), config)
    limit = config.max_text_bytes
    for i, text in enumerate(texts):
        # No text has more than four bytes a character, so most need no encoding to be measured.
        if len(text) * 4 > limit and (size := len(text.encode())) > limit:
            fail(f"queries.text.texts[{i}]", f"at most {limit} bytes of UTF-8", size)
    return TextQueries(list(texts))


def held_bytes(queries: Queries, label_filter: LabelFilter | None) -> int:
    """Memory that queries hold while they wait, and their filter."""
    num_bytes = 0 if label_filter is None else label_filter.rows.nbytes
    match queries:
        case TextQueries():
            return num_bytes + sum(map(getsizeof, queries.texts))
        case SparseQueries():
            arrays = queries.indptr, queries.indices, queries.values
            return num_bytes + sum(array.nbytes for array in arrays)
        case DenseQueries():
            return num_bytes + queries.features_BF.nbytes
        case EmbeddingQueries():
            return num_bytes + queries.embeddings_BD.nbytes


def check_answer_size(size_bytes: int, config: ServerConfig) -> None:
    """Refuses an answer that is larger than a message may be.

    Raises:
        RequestTooLargeError: If so.
    """
    limit = config.max_message_bytes
    if size_bytes > limit:
        expected = f"an answer of at most {limit} bytes; ask for fewer queries or a smaller k"
        raise RequestTooLargeError("queries", expected=expected, actual=size_bytes)


def fail(field: str, expected: str, actual: object) -> NoReturn:
    """Raises the InvalidQueryError that names this field."""
    raise InvalidQueryError(field, expected=expected, actual=actual)
