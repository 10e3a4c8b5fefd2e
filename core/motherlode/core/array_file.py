"""Arrays in a safetensors file that is mapped rather than read.

Shapes: L rows, D columns.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import FloatArray

# Rows then start where vector instructions and pages like them to.
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 1 << 20
_DTYPES = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}


def write_matrix(path: Path, name: str, matrix_LD: FloatArray) -> None:
    """Writes float32 [L, D] as the only tensor of a safetensors file, without a copy.

    Raises:
        OSError: If the file cannot be written.
    """
    matrix_LD = np.ascontiguousarray(matrix_LD, "<f4")
    entry = {"dtype": "F32", "shape": matrix_LD.shape, "data_offsets": [0, matrix_LD.nbytes]}
    header = json.dumps({name: entry}).encode()
    header += b" " * (-(len(header) + 8) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(matrix_LD.data)


def map_matrix(path: Path, name: str) -> FloatArray:
    """The only tensor of a safetensors file: float32 [L, D], read-only, mapped.

    Raises:
        BundleError: If the file cannot be read or holds something else.
    """
    arrays = map_arrays(path)
    matrix = arrays.get(name)
    if len(arrays) != 1 or matrix is None or matrix.ndim != 2 or matrix.dtype != np.float32:
        raise BundleError(path, f"not a safetensors file with the float32 matrix {name!r} alone")
    return matrix


def map_arrays(path: Path, *, num_bytes_behind: int = 0) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file by name: float32, int32 or int64, read-only, mapped.

    Args:
        path: Of the file.
        num_bytes_behind: What stands behind the tensors, such as the seal of an index.

    Raises:
        BundleError: If the file cannot be read or is no such file.
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(header_bytes, _MAX_HEADER_BYTES)))
        start = 8 + header_bytes
        if not isinstance(header, dict):
            raise TypeError("the header is no object")
        header.pop("__metadata__", None)
        _check_extent(header, path.stat().st_size - start - num_bytes_behind)
        return {name: _map(path, start, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(path, f"not a safetensors file of mapped arrays: {error}") from error


def check_row(name: str, array: NDArray[Any], dtype: type[np.generic]) -> None:
    """Refuses what is no row of the type.

    Raises:
        InvalidInputError: If so; names the array.
    """
    if array.ndim != 1 or array.dtype != dtype:
        expected = f"a row of {np.dtype(dtype).name}"
        actual = f"{array.dtype} {list(array.shape)}"
        raise InvalidInputError(name, expected=expected, actual=actual)


def _map(path: Path, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    first, last = entry["data_offsets"]
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
    if not isinstance(shape, list):
        raise TypeError(f"header {entry}")
    if last - first != dtype.itemsize * math.prod(shape):
        raise ValueError(f"header {entry}")
    if last == first:
        return np.empty(tuple(shape), dtype)
    # A plain array over the mapping: slices of `np.memmap` itself cost microseconds each.
    return np.asarray(np.memmap(path, dtype, "r", start + first, tuple(shape)))


def _check_extent(header: dict[str, Any], num_bytes: int) -> None:
    """Refuses tensors that leave gaps, overlap, or are not all of the file."""
    end = 0
    for first, last in sorted(entry["data_offsets"] for entry in header.values()):
        if first != end or last < first:
            raise ValueError(f"header {header}")
        end = last
    if num_bytes != end:
        raise ValueError(f"{num_bytes} bytes of data, expected {end}")
