from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import DataError
from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries
from motherlode.core.records import RecordBatch, read_records
from tests.support.data_files import write_bytes, write_lines, write_records


def read(path: Path, batch_size: int = 100, num_features: int | None = None) -> list[RecordBatch]:
    return list(read_records(path, batch_size=batch_size, num_features=num_features))


def refused(path: Path, **kwargs) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, **kwargs)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_texts_come_in_batches_with_labels_as_text_and_row_numbers_as_ids(tmp_path, name):
    records = [{"text": f"Zürich {i}", "labels": ["a", i]} for i in range(5)]
    batches = read(write_records(tmp_path / name, records), batch_size=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert all(isinstance(batch.queries, TextQueries) for batch in batches)
    assert [t for b in batches for t in b.queries.texts] == [f"Zürich {i}" for i in range(5)]
    assert [ids for batch in batches for ids in batch.ids] == ["0", "1", "2", "3", "4"]
    assert [keys for batch in batches for keys in batch.labels] == [["a", str(i)] for i in range(5)]
    assert [line for batch in batches for line in batch.lines] == [1, 2, 3, 4, 5]


def test_ids_are_kept_and_labels_may_be_absent(tmp_path):
    (batch,) = read(write_records(tmp_path / "q.jsonl", [{"text": "a", "id": 7}]))
    assert batch.ids == ["7"]
    assert batch.labels is None


def test_keys_that_no_reader_knows_are_ignored(tmp_path):
    records = [{"text": "a"}, {"text": "b", "year": 1999}]
    (batch,) = read(write_records(tmp_path / "q.jsonl", records))
    assert batch.queries.texts == ["a", "b"]


def test_sparse_rows_are_sorted_by_feature(tmp_path):
    records = [
        {"indices": [5, 2], "values": [1, 0.5]},
        {"indices": [], "values": []},
        {"indices": [3], "values": [-2.0]},
    ]
    (batch,) = read(write_records(tmp_path / "q.jsonl", records), num_features=9)
    queries = batch.queries
    assert isinstance(queries, SparseQueries)
    np.testing.assert_array_equal(queries.indptr, [0, 2, 2, 3])
    np.testing.assert_array_equal(queries.indices, [2, 5, 3])
    np.testing.assert_array_equal(queries.values, np.array([0.5, 1, -2], np.float32))
    assert (queries.indices.dtype, queries.values.dtype) == (np.int64, np.float32)
    assert queries.num_features == 9


def test_sparse_rows_of_an_unknown_width_have_the_batchs_own(tmp_path):
    records = [{"indices": [i], "values": [1.0]} for i in (3, 8)]
    batches = read(write_records(tmp_path / "q.jsonl", records), batch_size=1)
    assert [batch.queries.num_features for batch in batches] == [4, 9]


def test_dense_rows_become_a_matrix(tmp_path):
    records = [{"features": [1, 2.5]}, {"features": [0, -1]}]
    (batch,) = read(write_records(tmp_path / "q.jsonl", records), num_features=2)
    assert isinstance(batch.queries, DenseQueries)
    np.testing.assert_array_equal(batch.queries.features_BF, np.array([[1, 2.5], [0, -1]]))
    assert batch.queries.features_BF.dtype == np.float32


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(tmp_path):
    content = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n \n'
    (batch,) = read(write_bytes(tmp_path / "q.jsonl", content))
    assert batch.queries.texts == ["a", "b"]
    assert batch.ids == ["0", "1"]
    assert list(batch.lines) == [1, 3]


def test_a_last_line_without_its_end_is_read(tmp_path):
    (batch,) = read(write_bytes(tmp_path / "q.jsonl", b'{"text": "a"}'))
    assert batch.queries.texts == ["a"]


def test_an_empty_text_and_a_text_of_a_megabyte_are_texts(tmp_path):
    texts = ["", "ä" * 1_000_000]
    (batch,) = read(write_records(tmp_path / "q.jsonl", [{"text": text} for text in texts]))
    assert batch.queries.texts == texts


GOOD = '{"text": "a", "labels": ["x"]}'


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ('{"text": "a", "labels": ["x"}', "JSON", "delimiter at column 29"),
        ('{"text": "a"', "JSON", "column"),
        ("[1]", "JSON", "expected an object"),
        ('{"text": NaN, "labels": []}', "JSON", "NaN"),
        ('{"text": "\\ud800", "labels": []}', "JSON", "surrogates"),
        ('{"text": ' + "1" * 5000 + "}", "JSON", "4300"),
        ("[" * 100_000, "JSON", "recursion"),
        ('{"labels": ["x"]}', "text", "expected a string, got nothing"),
        ('{"text": null, "labels": ["x"]}', "text", "got null"),
        ('{"text": 5, "labels": ["x"]}', "text", r"got 5 \(int\)"),
        ('{"text": "a"}', "labels", "got nothing"),
        ('{"text": "a", "labels": "x"}', "labels", r"a list .*, got 'x' \(str\)"),
        ('{"text": "a", "labels": ["x", 1.5]}', r"labels\[1\]", r"got 1.5 \(float\)"),
        ('{"text": "a", "labels": [true]}', r"labels\[0\]", r"got True \(bool\)"),
        ('{"text": "a", "labels": [null]}', r"labels\[0\]", "got null"),
        ('{"text": "a", "labels": [], "id": 3}', "id", r"none, as in the first.*got 3 \(int\)"),
        ('{"text": "a", "labels": [], "features": [1]}', "input", "only text.*got features"),
        ('{"features": [1.0], "labels": []}', "input", "only text.*got features"),
    ],
)
def test_a_broken_line_is_named_with_its_field(tmp_path, line, field, message):
    error = refused(write_lines(tmp_path / "q.jsonl", GOOD, GOOD, line, GOOD))
    assert error.line == 3
    assert f"{tmp_path}/q.jsonl:3: " in str(error)
    assert error.field.split(": ")[-1] == field.replace("\\", "")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(str(error))


def test_labels_that_the_first_record_lacks_are_refused(tmp_path):
    error = refused(write_lines(tmp_path / "q.jsonl", '{"text": "a"}', GOOD))
    assert error.line == 2
    assert "labels: expected none, as in the first record" in str(error)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"indices": [1, 2], "values": [1.0]}, "values: expected 2 values, one an index, got 1"),
        ({"indices": [1]}, "values: expected a list of numbers, got nothing"),
        ({"values": [1]}, "indices: expected a list of integers, got nothing"),
        ({"indices": [1, "2"], "values": [1, 1]}, r"indices\[1\]: .*got '2' \(str\)"),
        ({"indices": [True], "values": [1]}, r"indices\[0\]: .*got True \(bool\)"),
        ({"indices": [0, -1], "values": [1, 1]}, r"indices\[1\]: .* from 0 to 9, got -1"),
        ({"indices": [10], "values": [1]}, r"indices\[0\]: .* from 0 to 9, got 10"),
        ({"indices": [2**70], "values": [1]}, r"indices\[0\]: .* from 0 to 9, got 1180591"),
        ({"indices": [4, 2, 4], "values": [1, 1, 1]}, r"indices\[2\]: .*got 4 again"),
        ({"indices": [1], "values": [1e39]}, r"values\[0\]: .*a finite 32-bit float"),
        ({"indices": [1], "values": [10**400]}, r"values\[0\]: .*a finite 32-bit float"),
        ({"indices": [1], "values": ["1"]}, r"values\[0\]: .*got '1' \(str\)"),
    ],
)
def test_a_broken_sparse_row_is_named_with_its_field(tmp_path, record, message):
    good = {"indices": [0, 9], "values": [1, 2]}
    path = write_records(tmp_path / "q.jsonl", [good, record])
    with pytest.raises(DataError, match=rf"q\.jsonl:2: {message}"):
        read(path, num_features=10)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"features": [1.0]}', "features: expected 2 numbers, got 1"),
        ('{"features": [1.0, 1e999]}', r"features\[1\]: expected a finite 32-bit float, got inf"),
        ('{"features": [1.0, -Infinity]}', "JSON: .*-Infinity"),
        ('{"features": [1.0, "2"]}', r"features\[1\]: expected a list of numbers, got '2'"),
        ('{"features": {"0": 1}}', r"features: expected a list of numbers, got .* \(dict\)"),
        ('{"text": "a"}', "input: expected only features, as in the first record, got text"),
    ],
)
def test_a_broken_dense_row_is_named_with_its_field(tmp_path, line, message):
    path = write_lines(tmp_path / "q.jsonl", '{"features": [1, 2]}', line)
    with pytest.raises(DataError, match=rf"q\.jsonl:2: {message}"):
        read(path)


def test_a_dense_row_of_another_width_than_asked_for_is_refused(tmp_path):
    path = write_records(tmp_path / "q.jsonl", [{"features": [1, 2]}])
    with pytest.raises(DataError, match=r"q\.jsonl:1: features: expected 3 numbers, got 2"):
        read(path, num_features=3)


@pytest.mark.parametrize(
    ("record", "actual"),
    [({"text": "a", "features": [1]}, "text and features"), ({"name": "a"}, "the keys .'name'.")],
)
def test_a_first_record_without_one_kind_of_input_is_refused(tmp_path, record, actual):
    path = write_records(tmp_path / "q.jsonl", [record])
    with pytest.raises(DataError, match=rf"q\.jsonl:1: input: expected one of .*, got {actual}"):
        read(path)


def test_bytes_that_are_not_utf8_are_named_with_line_and_column(tmp_path):
    content = b'{"text": "a"}\n{"text": "\xe4"}\n'
    error = refused(write_bytes(tmp_path / "q.jsonl.gz", content))
    assert error.line == 2
    assert "expected UTF-8, got byte 0xe4 at column 11" in str(error)


def test_a_truncated_gzip_stream_is_named_after_the_records_before_the_cut(tmp_path):
    texts = np.random.default_rng(0).integers(0, 2**60, 100_000).tolist()
    lines = "".join(f'{{"text": "{text}"}}\n' for text in texts)
    path = tmp_path / "q.jsonl.gz"
    whole = gzip.compress(lines.encode())
    path.write_bytes(whole[: len(whole) // 2])
    batches = read_records(path, batch_size=10)
    assert next(batches).queries.texts == [str(text) for text in texts[:10]]
    with pytest.raises(DataError, match=r"gzip stream: expected a whole one") as caught:
        list(batches)
    assert caught.value.line is None


def test_a_file_that_is_only_called_gz_is_refused(tmp_path):
    path = tmp_path / "q.jsonl.gz"
    path.write_text(GOOD)
    assert "gzip stream" in str(refused(path))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_records_is_refused(tmp_path, content):
    error = refused(write_bytes(tmp_path / "q.jsonl", content))
    assert "records: expected at least one, got none" in str(error)


def test_a_missing_file_a_folder_and_an_unknown_format_are_refused_at_once(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl: file: .*nothing at this path"):
        read_records(tmp_path / "a.jsonl", batch_size=1)
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(DataError, match=r"b\.jsonl: file: .*a folder"):
        read_records(tmp_path / "b.jsonl", batch_size=1)
    with pytest.raises(DataError, match=r"one that ends in \.jsonl\.gz, .*got 'c\.csv'"):
        read_records(tmp_path / "c.csv", batch_size=1)


def test_a_batch_size_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        read_records(write_lines(tmp_path / "q.jsonl", GOOD), batch_size=0)


def test_records_before_a_broken_line_are_yielded_first(tmp_path):
    batches = read_records(write_lines(tmp_path / "q.jsonl", GOOD, "{"), batch_size=1)
    assert next(batches).ids == ["0"]
    with pytest.raises(DataError):
        next(batches)


def test_labels_repeated_in_a_record_are_left_to_the_caller(tmp_path):
    path = write_lines(tmp_path / "q.jsonl", json.dumps({"text": "a", "labels": ["x", "x"]}))
    (batch,) = read(path)
    assert batch.labels == [["x", "x"]]


def test_a_file_of_no_bytes_is_no_gzip_stream(tmp_path):
    path = tmp_path / "q.jsonl.gz"
    path.touch()
    assert "gzip stream: expected a whole one, got no bytes" in str(refused(path))


def test_an_input_of_another_kind_than_wanted_is_named_before_its_width(tmp_path):
    path = write_bytes(tmp_path / "q.jsonl", b'{"features": [1.0, 2.0]}\n')
    with pytest.raises(DataError, match=r"q\.jsonl:1: queries: expected one of text, sparse, got"):
        list(read_records(path, batch_size=1, num_features=9, kinds=("text", "sparse")))
    with pytest.raises(DataError, match="queries: expected text, got features"):
        list(read_records(path, batch_size=1, kinds=["text"]))
