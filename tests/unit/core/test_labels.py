from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from motherlode.core.errors import BundleError, NotFoundError
from motherlode.core.labels import LabelTable, StringColumn


def make_table(*, texts: bool = True) -> LabelTable:
    names = ["Αθήνα", "東京", "N'Djamena"] if texts else None
    return LabelTable(["gr", "jp", "td"], names, np.array([3, 0, 7]))


def test_a_saved_table_loads_with_the_same_columns(tmp_path: Path) -> None:
    make_table().save(tmp_path / "labels.arrow")
    table = LabelTable.load(tmp_path / "labels.arrow")
    assert list(table.keys) == ["gr", "jp", "td"]
    assert table.texts is not None
    assert list(table.texts) == ["Αθήνα", "東京", "N'Djamena"]
    np.testing.assert_array_equal(table.frequencies, [3, 0, 7])
    assert table.frequencies.dtype == np.int64
    assert len(table) == 3


def test_a_table_without_texts_stays_without_and_shows_its_keys(tmp_path: Path) -> None:
    make_table(texts=False).save(tmp_path / "labels.arrow")
    table = LabelTable.load(tmp_path / "labels.arrow")
    assert table.texts is None
    assert table.texts_of(np.array([2, 0])) == ["td", "gr"]


def test_keys_and_texts_come_in_the_order_of_the_rows() -> None:
    table = make_table()
    assert table.keys_of(np.array([2, 0, 2])) == ["td", "gr", "td"]
    assert table.texts_of(np.array([1])) == ["東京"]
    assert table.keys_of(np.array([], np.int64)) == []


def test_many_rows_give_the_same_as_few() -> None:
    table = LabelTable([f"key{i}" for i in range(7)], None, np.zeros(7, np.int64))
    rows = np.arange(1000) % 7
    assert table.keys_of(rows) == [f"key{row}" for row in rows]


def test_a_column_can_be_sliced_and_indexed_from_the_end() -> None:
    table = make_table()
    assert list(table.keys[1:]) == ["jp", "td"]
    assert table.keys[-1] == "td"
    assert "jp" in table.keys


def test_the_row_of_a_key_is_found() -> None:
    assert make_table().row_of("jp") == 1


def test_an_unknown_key_is_not_found_by_name() -> None:
    with pytest.raises(NotFoundError, match="no label 'xx'"):
        make_table().row_of("xx")


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        LabelTable(["a", "b"], None, np.array([1]))


def test_a_repeated_key_is_refused_by_name(tmp_path: Path) -> None:
    table = LabelTable(["a", "b", "a"], None, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="'a' is repeated"):
        table.save(tmp_path / "labels.arrow")


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    make_table().save(tmp_path / "one.arrow")
    make_table().save(tmp_path / "two.arrow")
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "two.arrow").read_bytes()


def test_a_file_that_is_no_table_is_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "labels.arrow"
    path.write_bytes(b"no Arrow in here")
    with pytest.raises(BundleError, match=r"labels\.arrow: not a readable label table"):
        LabelTable.load(path)
    with pytest.raises(BundleError, match="not a readable label table"):
        LabelTable.load(tmp_path / "missing.arrow")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"key": pa.array(["a"])}, "expected the columns"),
        ({"key": pa.array([1]), "text": pa.array(["a"]), "frequency": pa.array([1])}, "columns"),
        (
            {
                "key": pa.array(["a", None], pa.large_string()),
                "text": pa.nulls(2, pa.large_string()),
                "frequency": pa.array([1, 2]),
            },
            "a key, text or frequency is missing",
        ),
    ],
)
def test_an_arrow_file_with_other_content_is_refused(
    tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "labels.arrow"
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(BundleError, match=reason):
        LabelTable.load(path)


def test_what_is_shown_of_labels_are_their_texts_or_else_their_keys() -> None:
    frequencies = np.array([1, 2])
    assert list(LabelTable(["a", "b"], ["x", "y"], frequencies).shown) == ["x", "y"]
    assert list(LabelTable(["a", "b"], None, frequencies).shown) == ["a", "b"]


def test_a_string_takes_its_bytes_and_an_offset_on_average() -> None:
    assert StringColumn.of(["é" * 50, "", "ab" * 25, "a"]).mean_bytes == 151 / 4 + 8
