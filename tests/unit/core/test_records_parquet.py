from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motherlode.core.errors import DataError
from motherlode.core.records import RecordBatch, read_records
from tests.support.data_files import write_records

RECORDS = [
    {"text": "eins", "labels": ["a", "b"], "id": "x"},
    {"text": "", "labels": [], "id": "y"},
    {"text": "東京", "labels": ["c"], "id": "z"},
]


def read(path, batch_size: int = 100, num_features: int | None = None) -> list[RecordBatch]:
    return list(read_records(path, batch_size=batch_size, num_features=num_features))


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_the_same_records_give_the_same_batches_as_from_jsonl(tmp_path):
    sparse = [{"indices": [4, 1], "values": [0.5, 1.0], "labels": [3]} for _ in range(5)]
    dense = [{"features": [float(i), 0.25], "id": i} for i in range(5)]
    for records in (RECORDS, sparse, dense):
        from_parquet = read(write_records(tmp_path / "q.parquet", records), batch_size=2)
        from_jsonl = read(write_records(tmp_path / "q.jsonl", records), batch_size=2)
        assert len(from_parquet) == len(from_jsonl)
        for left, right in zip(from_parquet, from_jsonl, strict=True):
            assert (left.ids, left.labels, left.lines) == (right.ids, right.labels, right.lines)
            assert type(left.queries) is type(right.queries)
            for name in left.queries.__slots__:
                np.testing.assert_array_equal(
                    getattr(left.queries, name), getattr(right.queries, name)
                )


def test_batches_are_full_across_row_groups(tmp_path):
    path = tmp_path / "q.parquet"
    table = pa.table({"text": [str(i) for i in range(10)], "other": list(range(10))})
    pq.write_table(table, path, row_group_size=3)
    batches = read(path, batch_size=4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [text for batch in batches for text in batch.queries.texts] == list("0123456789")
    assert batches[2].ids == ["8", "9"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.large_string(), ["a", "b"]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
    ],
)
def test_texts_may_be_stored_in_any_string_type(tmp_path, kind, values):
    (batch,) = read(write_table(tmp_path / "q.parquet", text=pa.array(values, kind)))
    assert batch.queries.texts == values


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int8())]
)
def test_features_may_be_stored_in_any_list_of_numbers(tmp_path, kind):
    features = pa.array([[1, 2], [3, 4]], kind)
    (batch,) = read(write_table(tmp_path / "q.parquet", features=features))
    np.testing.assert_array_equal(batch.queries.features_BF, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1, 2]}, "text: expected a column of strings, got a column of int64"),
        ({"text": ["a"], "labels": ["x"]}, "labels: expected a column of lists of strings or"),
        ({"text": ["a"], "labels": [[1.5]]}, "labels: .*got a column of list<.*double>"),
        ({"text": ["a"], "id": [1.5]}, "id: expected a column of strings or integers"),
        ({"features": [["1"]]}, "features: expected a column of lists of numbers"),
        ({"indices": [[1.0]], "values": [[1.0]]}, "indices: .* lists of integers"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(tmp_path, columns, message):
    path = write_table(tmp_path / "q.parquet", **columns)
    with pytest.raises(DataError, match=rf"q\.parquet: {message}") as caught:
        read(path)
    assert caught.value.line is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b", None]}, "text: expected a value, got null"),
        ({"text": ["a"] * 3, "labels": [["x"], [], None]}, "labels: expected a value, got null"),
        ({"text": ["a"] * 3, "labels": [["x"], [], ["y", None]]}, "labels: .*got null"),
        ({"features": [[1.0], [2.0], [float("nan")]]}, "features: expected finite numbers"),
        ({"features": [[1.0], [2.0], [1.0, 2.0]]}, "features: expected 1 numbers, got 2"),
        ({"indices": [[0], [], [1, 1]], "values": [[1], [], [1, 1]]}, r"indices\[1\]: .*again"),
        ({"indices": [[0], [], [-1]], "values": [[1], [], [1]]}, r"indices\[0\]: .*got -1"),
        ({"indices": [[0], [], [1]], "values": [[1], [], []]}, "values: expected 1 values"),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_field(tmp_path, columns, message):
    path = write_table(tmp_path / "q.parquet", **columns)
    for batch_size in (1, 2, 3):
        with pytest.raises(DataError, match=rf"q\.parquet:3: {message}"):
            read(path, batch_size=batch_size)


def test_bytes_that_are_not_utf8_are_named_with_their_row(tmp_path):
    data = pa.array([b"a", b"\xff"], pa.binary())
    text = pa.StringArray.from_buffers(2, data.buffers()[1], data.buffers()[2])
    path = write_table(tmp_path / "q.parquet", text=text)
    with pytest.raises(DataError, match=r"q\.parquet:2: text: expected UTF-8"):
        read(path)


def test_a_file_without_an_input_column_or_with_two_kinds_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"q\.parquet:1: input: expected one of"):
        read(write_table(tmp_path / "q.parquet", labels=[["a"]]))
    with pytest.raises(DataError, match="got text and features"):
        read(write_table(tmp_path / "q.parquet", text=["a"], features=[[1.0]]))


def test_a_file_without_rows_is_refused(tmp_path):
    path = write_table(tmp_path / "q.parquet", text=pa.array([], pa.string()))
    with pytest.raises(DataError, match="records: expected at least one, got none"):
        read(path)


def test_a_truncated_or_damaged_file_is_refused(tmp_path):
    path = write_table(tmp_path / "q.parquet", text=[f"text {i}" for i in range(1000)])
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"text", whole[:50] + bytes(400) + whole[450:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"q\.parquet: file: expected a whole Parquet file"):
            read(path)


def test_a_row_group_is_not_held_in_memory_as_a_whole(tmp_path):
    numbers = np.random.default_rng(0).bytes(16_000_000).hex()
    texts = [numbers[start : start + 1000] for start in range(0, len(numbers), 1000)]
    path = write_table(tmp_path / "q.parquet", text=texts)
    del texts
    before = pa.total_allocated_bytes()
    batches = read_records(path, batch_size=10)
    assert len(next(batches)) == 10
    assert path.stat().st_size > 30_000_000
    assert pa.total_allocated_bytes() - before < 15_000_000
