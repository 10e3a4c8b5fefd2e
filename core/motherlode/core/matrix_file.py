"""One float32 matrix in a safetensors file, written without a copy and mapped rather than read.

Shapes: L rows, D columns.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from motherlode.core.errors import BundleError
from motherlode.core.queries import FloatArray

# Rows then start where vector instructions and pages like them to.
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 1 << 20


def write_matrix(path: Path, name: str, matrix_LD: FloatArray) -> None:
    """Writes float32 [L, D] as the only tensor of a safetensors file.

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
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(header_bytes, _MAX_HEADER_BYTES)))
        start = 8 + header_bytes
        shape = _checked_shape(header, name, path.stat().st_size - start)
        mapped = np.memmap(path, "<f4", "r", start, shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not a safetensors file with the float32 matrix {name!r} alone: {error}"
        raise BundleError(path, reason) from error
    # A plain array over the mapping: slices of `np.memmap` itself cost microseconds each.
    return np.asarray(mapped)


def _checked_shape(header: dict[str, Any], name: str, num_bytes: int) -> tuple[int, int]:
    entry = header[name]
    num_rows, num_columns = entry["shape"]
    expected = [0, 4 * math.prod(entry["shape"])]
    others = header.keys() - {name, "__metadata__"}
    if others or entry["dtype"] != "F32" or entry["data_offsets"] != expected:
        raise ValueError(f"header {header}")
    if num_bytes != expected[1]:
        raise ValueError(f"{num_bytes} bytes of data, expected {expected[1]}")
    return num_rows, num_columns
