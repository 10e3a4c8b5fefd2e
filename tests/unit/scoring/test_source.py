from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from motherlode.core.errors import DataError
from motherlode.scoring.source import count_rows, identify
from tests.support.scoring import texts, write_jsonl, write_parquet


def test_a_file_is_identified_by_its_content(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", texts(3))
    record = identify(path).record
    assert record.name == "q.jsonl"
    assert record.size_bytes == path.stat().st_size
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_what_is_no_readable_file_is_refused_by_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"input: expected a readable file, got"):
        identify(tmp_path / name)


def test_an_untouched_file_counts_as_unchanged(tmp_path: Path) -> None:
    identify(write_jsonl(tmp_path / "q.jsonl", texts(3))).check_unchanged()


def test_a_file_written_to_after_it_was_identified_counts_as_changed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", texts(3))
    source = identify(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="as it was when the run started"):
        source.check_unchanged()


def test_a_file_removed_after_it_was_identified_counts_as_unreadable(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", texts(3))
    source = identify(path)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        source.check_unchanged()


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_the_rows_of_a_text_file_are_its_lines(tmp_path: Path, name: str) -> None:
    assert count_rows(write_jsonl(tmp_path / name, texts(30))) == 30


def test_a_last_line_without_line_break_counts(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}')
    assert count_rows(path) == 2


def test_a_sparse_text_file_that_claims_more_rows_than_it_has_is_taken_at_its_word(
    tmp_path: Path,
) -> None:
    path = tmp_path / "q.txt"
    path.write_text("9 5 3\n0 1:0.5\n")
    assert count_rows(path) == 9


@pytest.mark.parametrize(("name", "text"), [("q.jsonl", ""), ("q.txt", ""), ("q.txt", "0 5 3\n")])
def test_a_file_without_rows_has_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert count_rows(tmp_path / name) == 0


def test_the_header_of_a_sparse_text_file_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("2 5 3\n0 1:0.5\n1 2:0.5\n")
    assert count_rows(path) == 2


def test_the_rows_of_a_parquet_file_come_from_its_footer(tmp_path: Path) -> None:
    assert count_rows(write_parquet(tmp_path / "q.parquet", texts(30))) == 30


@pytest.mark.parametrize("header", ["-1 3 4", "0 3", "0 three 4"])
def test_a_sparse_text_file_with_a_wrong_header_has_an_unknown_number_of_rows(
    tmp_path: Path, header: str
) -> None:
    (tmp_path / "q.txt").write_text(f"{header}\n")
    assert count_rows(tmp_path / "q.txt") is None


def test_a_gzip_file_of_no_bytes_is_not_empty_but_broken(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl.gz").touch()
    assert count_rows(tmp_path / "q.jsonl.gz") is None


@pytest.mark.parametrize("name", ["q.csv", "q"])
def test_a_file_of_an_unknown_format_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="file name: expected one that ends in"):
        identify(tmp_path / name)


def test_a_device_is_no_input() -> None:
    with pytest.raises(DataError, match="input: expected a readable file"):
        identify(Path(os.devnull))


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl.gz", "q.txt", "missing.jsonl"])
def test_the_rows_of_a_broken_file_are_unknown(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"\x1f\x8b no such format")
    assert count_rows(tmp_path / name) is None
