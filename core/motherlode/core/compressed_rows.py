"""Rows of different lengths, one after the other, and where each begins.

Shapes: B rows, C of them chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.array_file import check_row
from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import IntArray


def entries_of(indptr: IntArray, chosen: IntArray) -> tuple[IntArray, IntArray]:
    """The offsets of the chosen rows, put together, and the old places of their entries.

    Args:
        indptr: int64 [B + 1].
        chosen: int64 [C], row numbers in any order.

    Returns:
        int64 [C + 1] and int64 [entries].
    """
    starts = indptr[chosen]
    lengths = indptr[chosen + 1] - starts
    offsets = offsets_of(lengths)
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def offsets_of(lengths: IntArray) -> IntArray:
    """int64 [B + 1]: where each of B rows of these lengths begins, and the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def check_compressed_rows(
    offsets: tuple[str, NDArray[Any]], ids: tuple[str, NDArray[Any]], num_ids: int
) -> None:
    """Refuses what are no rows of ids, one after the other.

    Args:
        offsets: Name, and int64 [rows + 1]: where each row begins, and the last ends.
        ids: Name, and int32 [ids]: 0 to num_ids, excluded.
        num_ids: Of which there are so many different ones.

    Raises:
        InvalidInputError: If so; names the array.
    """
    check_row(*offsets, np.int64)
    check_row(*ids, np.int32)
    (name, starts), num_entries = offsets, len(ids[1])
    ends = [*starts[:1].tolist(), *starts[-1:].tolist()]
    if ends != [0, num_entries] or (starts[1:] < starts[:-1]).any():
        raise InvalidInputError(name, expected=f"0 to {num_entries}, ascending", actual=ends)
    smallest, largest = ids[1].min(initial=0), ids[1].max(initial=-1)
    if smallest < 0 or largest >= num_ids:
        actual = [int(smallest), int(largest)]
        raise InvalidInputError(ids[0], expected=f"0 to {num_ids - 1}", actual=actual)
