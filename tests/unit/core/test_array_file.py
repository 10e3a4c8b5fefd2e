from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from motherlode.core.array_file import map_arrays, map_matrix, write_matrix
from motherlode.core.errors import BundleError

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_written_matrix_maps_back(tmp_path: Path) -> None:
    write_matrix(tmp_path / "m.safetensors", "labels", MATRIX)
    mapped = map_matrix(tmp_path / "m.safetensors", "labels")
    np.testing.assert_array_equal(mapped, MATRIX)
    assert type(mapped) is np.ndarray
    assert not mapped.flags.writeable
    assert mapped.ctypes.data % 64 == 0


def test_other_programs_read_the_file_and_write_it(tmp_path: Path) -> None:
    write_matrix(tmp_path / "ours.safetensors", "labels", MATRIX)
    np.testing.assert_array_equal(load_file(tmp_path / "ours.safetensors")["labels"], MATRIX)
    save_file({"labels": MATRIX}, tmp_path / "theirs.safetensors", metadata={"by": "them"})
    np.testing.assert_array_equal(map_matrix(tmp_path / "theirs.safetensors", "labels"), MATRIX)


def test_a_matrix_that_is_not_contiguous_is_written_in_its_order(tmp_path: Path) -> None:
    write_matrix(tmp_path / "m.safetensors", "labels", MATRIX.T)
    np.testing.assert_array_equal(map_matrix(tmp_path / "m.safetensors", "labels"), MATRIX.T)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": MATRIX},
        {"labels": MATRIX, "other": MATRIX},
        {"labels": MATRIX.astype(np.int32)},
        {"labels": MATRIX.ravel()},
    ],
)
def test_other_tensors_are_refused_by_path(tmp_path: Path, tensors: dict[str, Any]) -> None:
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(BundleError, match=r"m\.safetensors: .*float32 matrix 'labels' alone"):
        map_matrix(tmp_path / "m.safetensors", "labels")


@pytest.mark.parametrize("size_bytes", [0, 5, 60, 100, 175])
def test_a_cut_file_is_refused(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "m.safetensors"
    write_matrix(path, "labels", MATRIX)
    path.write_bytes(path.read_bytes()[:size_bytes])
    with pytest.raises(BundleError, match="not a safetensors file"):
        map_matrix(path, "labels")


def test_a_header_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    with pytest.raises(BundleError, match="not a safetensors file"):
        map_matrix(path, "labels")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"labels": 1},
        {"labels": {"dtype": "F32", "shape": "", "data_offsets": [0, 4]}},
        {"labels": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}},
    ],
)
def test_a_header_that_says_something_else_is_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 16)
    with pytest.raises(BundleError, match="not a safetensors file"):
        map_matrix(path, "labels")


def test_a_missing_file_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"m\.safetensors: .*No such file"):
        map_matrix(tmp_path / "m.safetensors", "labels")


ARRAYS = {
    "a": np.arange(5, dtype=np.int64),
    "b": np.ones((2, 3), np.float32),
    "c": np.zeros(0, np.int32),
    "d": np.array([7, -7], np.int32),
}


def test_several_arrays_map_back(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "a.safetensors")
    mapped = map_arrays(tmp_path / "a.safetensors")
    assert mapped.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("name", "offsets"), [("a", [0, 32]), ("b", [0, 24]), ("d", [-8, 0]), ("d", [8, 0])]
)
def test_arrays_that_overlap_or_leave_gaps_are_refused(
    tmp_path: Path, name: str, offsets: list[int]
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS, path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[name]["data_offsets"] = offsets
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(BundleError, match="not a safetensors file"):
        map_arrays(path)


def test_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.ones(3, np.float16)}, tmp_path / "a.safetensors")
    with pytest.raises(BundleError, match="not a safetensors file of mapped arrays: 'F16'"):
        map_arrays(tmp_path / "a.safetensors")
