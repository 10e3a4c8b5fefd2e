"""Queries of many batches as one, and a digest of what a data set holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from motherlode.core.labels import LabelTable
from motherlode.core.queries import (
    DenseQueries,
    IntArray,
    Queries,
    SparseQueries,
    TextQueries,
    concatenate,
)
from motherlode.core.records import RecordQueries
from motherlode.trainer.data.rows import PositiveRows

_CHUNK = 65_536


def join_queries(parts: Sequence[RecordQueries]) -> RecordQueries:
    """One batch of the batches of one file; sparse ones get the largest number of features."""
    widths = [part.num_features for part in parts if isinstance(part, SparseQueries)]
    widened: list[Queries] = [
        replace(part, num_features=max(widths)) if isinstance(part, SparseQueries) else part
        for part in parts
    ]
    return cast("RecordQueries", concatenate(widened))


def digest_of(
    queries: RecordQueries, positives: PositiveRows, num_true: IntArray, labels: LabelTable
) -> str:
    """SHA-256 in hexadecimal; equal on every machine for equal content."""
    digest = hashlib.sha256()
    for part in _query_bytes(queries):
        digest.update(part)
    for array in (positives.indptr, positives.indices, num_true):
        digest.update(_array_bytes(array))
    for texts in (labels.keys, labels.texts):
        digest.update(b"texts" if texts is not None else b"no texts")
        for part in _text_bytes(texts or ()):
            digest.update(part)
    return digest.hexdigest()


def _query_bytes(queries: RecordQueries) -> Iterator[bytes]:
    yield type(queries).__name__.encode()
    match queries:
        case TextQueries(texts):
            yield from _text_bytes(texts)
        case DenseQueries(features_BF):
            yield _array_bytes(features_BF)
        case SparseQueries(indptr, indices, values, num_features):
            yield str(num_features).encode()
            for array in (indptr, indices, values):
                yield _array_bytes(array)


def _text_bytes(texts: Sequence[str]) -> Iterator[bytes]:
    # Lengths part the texts, so that moving a character to the next text changes the digest.
    for start in range(0, len(texts), _CHUNK):
        encoded = [text.encode() for text in texts[start : start + _CHUNK]]
        yield _array_bytes(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        yield b"".join(encoded)


def _array_bytes(array: NDArray[Any]) -> bytes:
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return f"{array.dtype.name}{array.shape}".encode() + little_endian.tobytes()
