from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motherlode.core.errors import DataError
from motherlode.core.records import read_label_table
from tests.support.data_files import write_bytes, write_lines, write_records

RECORDS = [{"id": "p3", "text": "light"}, {"id": "p1", "text": ""}, {"id": "ä", "text": "light"}]


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz", "labels.parquet"])
def test_labels_keep_the_order_of_the_file(tmp_path, name):
    table = read_label_table(write_records(tmp_path / name, RECORDS))
    assert list(table.keys) == ["p3", "p1", "ä"]
    assert list(table.texts) == ["light", "", "light"]
    assert table.frequencies.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.parquet"])
def test_labels_may_have_numbers_as_keys_and_no_texts(tmp_path, name):
    table = read_label_table(write_records(tmp_path / name, [{"id": 7}, {"id": 3}]))
    assert list(table.keys) == ["7", "3"]
    assert table.texts is None


@pytest.mark.parametrize("name", ["labels.txt", "labels.txt.gz"])
def test_names_one_a_line_have_the_lines_numbers_as_keys(tmp_path, name):
    table = read_label_table(write_lines(tmp_path / name, "eins", "zwei drei"))
    assert list(table.keys) == ["0", "1"]
    assert list(table.texts) == ["eins", "zwei drei"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "p3", "text": "again"}, "id: expected each label once, got 'p3', as in line 1"),
        ({"text": "a"}, "id: expected a string or an integer, got nothing"),
        ({"id": 1.5, "text": "a"}, "id: .*got 1.5"),
        ({"id": "x"}, "text: expected a string, got nothing"),
        ({"id": "x", "text": 5}, r"text: expected a string, got 5 \(int\)"),
    ],
)
def test_a_wrong_label_is_named_with_its_line_and_field(tmp_path, record, message):
    path = write_records(tmp_path / "labels.jsonl", [*RECORDS, record])
    with pytest.raises(DataError, match=rf"labels\.jsonl:4: {message}"):
        read_label_table(path)


def test_a_key_once_as_a_number_and_once_as_text_is_repeated(tmp_path):
    path = write_records(tmp_path / "labels.jsonl", [{"id": 1}, {"id": "1"}])
    with pytest.raises(DataError, match=r":2: id: expected each label once"):
        read_label_table(path)


def test_a_text_that_the_first_label_lacks_is_refused(tmp_path):
    path = write_records(tmp_path / "labels.jsonl", [{"id": 1}, {"id": 2, "text": "b"}])
    with pytest.raises(DataError, match=r":2: text: expected none, as in the first line"):
        read_label_table(path)


def test_a_null_in_parquet_is_named_with_its_row(tmp_path):
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"id": ["a", None]}), path)
    with pytest.raises(DataError, match=r"labels\.parquet:2: id: expected a value, got null"):
        read_label_table(path)


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.txt", "labels.txt.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="records: expected at least one, got none"):
        read_label_table(write_bytes(tmp_path / name, b""))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing at this path"):
        read_label_table(tmp_path / "labels.parquet")
