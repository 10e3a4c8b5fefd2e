from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.errors import DataError
from motherlode.core.queries import SparseQueries
from motherlode.core.records import RecordBatch, read_records
from tests.support.data_files import write_bytes, write_lines


def read(path, batch_size: int = 100, num_features: int | None = None) -> list[RecordBatch]:
    return list(read_records(path, batch_size=batch_size, num_features=num_features))


@pytest.mark.parametrize("name", ["q.txt", "q.txt.gz"])
def test_records_have_labels_and_features_or_either_or_neither(tmp_path, name):
    lines = ["4 10 3", "2,0 9:1.5 3:-2e-1", " 4:.5", "1 ", " "]
    (batch,) = read(write_lines(tmp_path / name, *lines))
    assert batch.labels == [["2", "0"], [], ["1"], []]
    assert batch.ids == ["0", "1", "2", "3"]
    assert list(batch.lines) == [2, 3, 4, 5]
    queries = batch.queries
    assert isinstance(queries, SparseQueries)
    np.testing.assert_array_equal(queries.indptr, [0, 2, 3, 3, 3])
    np.testing.assert_array_equal(queries.indices, [3, 9, 4])
    np.testing.assert_array_equal(queries.values, np.array([-0.2, 1.5, 0.5], np.float32))
    assert queries.num_features == 10


def test_batches_follow_each_other_without_a_gap(tmp_path):
    lines = ["5 3 5", *(f"{i} {i % 3}:{i}" for i in range(5))]
    batches = read(write_lines(tmp_path / "q.txt", *lines), batch_size=2)
    assert [batch.labels for batch in batches] == [[["0"], ["1"]], [["2"], ["3"]], [["4"]]]
    assert [list(batch.lines) for batch in batches] == [[2, 3], [4, 5], [6]]
    assert [batch.ids for batch in batches] == [["0", "1"], ["2", "3"], ["4"]]
    assert [batch.queries.values.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_more_spaces_than_needed_and_blank_lines_at_the_end_do_no_harm(tmp_path):
    path = write_lines(tmp_path / "q.txt", "1 5 2", "0  1:1   4:2 ", "", "  ")
    (batch,) = read(path)
    assert batch.queries.indices.tolist() == [1, 4]
    assert len(batch) == 1


def test_label_ids_with_leading_zeros_are_the_same_labels(tmp_path):
    (batch,) = read(write_lines(tmp_path / "q.txt", "1 5 9", "07,7 1:1"))
    assert batch.labels == [["7", "7"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 1:1", r"labels\[0\]: expected a label id from 0 to 2, got '3'"),
        ("0,-1 1:1", r"labels\[1\]: .*got '-1'"),
        ("0,,1 1:1", r"labels\[1\]: .*got ''"),
        ("0,1.0 1:1", r"labels\[1\]: .*got '1.0'"),
        ("a 1:1", r"labels\[0\]: .*got 'a'"),
        ("٣ 1:1", r"labels\[0\]: .*got '٣'"),
        ("1:1 2:1", r"labels\[0\]: .*got '1:1'"),
        ("0 10:1", r"indices\[0\]: expected a feature id from 0 to 9, got 10"),
        ("0 1:1 -2:1", r"indices\[1\]: .*got -2"),
        ("0 1:1 2:1 1:3", r"indices\[2\]: expected each feature id once, got 1 again"),
        ("0 1:nan", r"features\[0\]: expected feature:value, got '1:nan'"),
        ("0 1:1 2:inf", r"features\[1\]: .*got '2:inf'"),
        ("0 1:1e39", r"values\[0\]: expected a finite 32-bit float, got 1e\+39"),
        ("0 1", r"features\[0\]: .*got '1'"),
        ("0 1: 2:1", r"features\[0\]: .*got '1:'"),
        ("0 1 2:3:4", r"features\[0\]: .*got '1'"),
        ("0 5:2:3 1", r"features\[0\]: .*got '5:2:3'"),
        ("0 1.5:1", r"features\[0\]: .*got '1.5:1'"),
        ("0 1_0:1", r"features\[0\]: .*got '1_0:1'"),
        ("0 1:1 two:1", r"features\[1\]: .*got 'two:1'"),
        ("0 1:--1", r"features\[0\]: .*got '1:--1'"),
        ("0\t1:1", r"labels\[0\]: .*got '0\\t1:1'"),
    ],
)
def test_a_broken_line_is_named_with_its_field(tmp_path, line, message):
    path = write_lines(tmp_path / "q.txt", "3 10 3", "0 1:1", line, "0 1:1")
    with pytest.raises(DataError, match=rf"q\.txt:3: {message}") as caught:
        read(path)
    assert caught.value.line == 3


@pytest.mark.parametrize("header", ["3 10", "3 10 3 1", "3 ten 3", "-3 10 3", "0 1:1", "3.0 10 3"])
def test_a_first_line_that_is_no_header_is_refused(tmp_path, header):
    path = write_lines(tmp_path / "q.txt", header, "0 1:1")
    with pytest.raises(DataError, match=r"q\.txt:1: header: expected three numbers"):
        read(path)


def test_fewer_records_than_the_header_says_are_refused_at_the_end(tmp_path):
    batches = read_records(
        write_lines(tmp_path / "q.txt", "3 10 3", "0 1:1", "0 1:1"), batch_size=1
    )
    assert [len(next(batches)), len(next(batches))] == [1, 1]
    with pytest.raises(DataError, match=r"q\.txt: records: expected 3, as line 1 says, got 2"):
        next(batches)


def test_more_records_than_the_header_says_are_refused(tmp_path):
    path = write_lines(tmp_path / "q.txt", "1 10 3", "0 1:1", "0 2:1")
    with pytest.raises(DataError, match=r"q\.txt:3: records: expected the end .* says 1 records"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"0 10 3\n"])
def test_a_file_without_records_is_refused(tmp_path, content):
    path = write_bytes(tmp_path / "q.txt", content)
    with pytest.raises(DataError, match=r"records: expected at least one, got none"):
        read(path)


def test_a_header_with_another_width_than_asked_for_is_refused(tmp_path):
    path = write_lines(tmp_path / "q.txt", "1 10 3", "0 1:1")
    assert read(path, num_features=10)[0].queries.num_features == 10
    with pytest.raises(DataError, match=r"q\.txt:1: header: expected 11 features, got 10"):
        read(path, num_features=11)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = write_bytes(tmp_path / "q.txt", b"1 10 3\n0 1:\xff\n")
    with pytest.raises(DataError, match=r"q\.txt:2: line: expected UTF-8, got byte 0xff"):
        read(path)


def test_a_sparse_file_is_refused_where_other_inputs_are_wanted(tmp_path):
    path = write_lines(tmp_path / "q.txt", "1 10 3", "0 1:1")
    with pytest.raises(DataError, match=r"q\.txt:1: queries: expected text, got sparse"):
        list(read_records(path, batch_size=1, kinds=["text"]))
