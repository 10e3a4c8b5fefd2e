from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.errors import DataError, NotFoundError, OutputError
from motherlode.core.queries import TextQueries
from motherlode.core.records import RecordBatch
from motherlode.scoring import RowsDone, score_file
from motherlode.scoring.scorer import cut
from tests.support.files import no_file_longer_than
from tests.support.scoring import (
    contents,
    interrupt,
    part_paths,
    request,
    rows,
    texts,
    write_jsonl,
    write_parquet,
)


def batch(start: int, size: int) -> RecordBatch:
    ids = [str(row) for row in range(start, start + size)]
    return RecordBatch(
        TextQueries([f"text {name}" for name in ids]), ids, None, range(start + 1, start + size + 1)
    )


@given(
    sizes=st.lists(st.integers(0, 9), max_size=6),
    skip=st.integers(0, 40),
    rows_per_part=st.integers(1, 12),
)
def test_cut_gives_each_row_after_the_skipped_ones_once_and_in_its_part(
    sizes: list[int], skip: int, rows_per_part: int
) -> None:
    batches = [batch(sum(sizes[:i]), size) for i, size in enumerate(sizes)]
    pieces = list(cut(batches, skip=skip, rows_per_part=rows_per_part))

    assert [name for piece in pieces for name in piece.ids] == [
        str(row) for row in range(skip, sum(sizes))
    ]
    for piece in pieces:
        assert piece.ids[0] == str(piece.start)
        assert [str(line - 1) for line in piece.lines] == piece.ids
        assert {int(name) // rows_per_part for name in piece.ids} == {piece.part}
        assert piece.is_last == ((int(piece.ids[-1]) + 1) % rows_per_part == 0)
        assert list(piece.queries.texts) == [f"text {name}" for name in piece.ids]


def test_each_row_gets_the_label_it_asks_for(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output))
    assert [row["query_id"] for row in rows(output)] == [f"q{i}" for i in range(50)]
    assert [row["labels"][0] for row in rows(output)] == list(range(50))
    assert [row["label_texts"][0] for row in rows(output)] == [f"topic{i}" for i in range(50)]


def test_the_parts_have_the_asked_number_of_rows_and_plain_names(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output))
    assert [(p.name, pq.read_metadata(p).num_rows) for p in part_paths(output)] == [
        ("part-00000.parquet", 20),
        ("part-00001.parquet", 20),
        ("part-00002.parquet", 10),
    ]


def test_a_last_part_that_is_full_is_followed_by_no_empty_one(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output, rows_per_part=25))
    assert len(part_paths(output)) == 2


def test_every_format_of_the_same_rows_gives_the_same_rows(
    shared_repository: Path, tmp_path: Path
) -> None:
    sources = [
        write_jsonl(tmp_path / "a.jsonl", texts(30)),
        write_jsonl(tmp_path / "b.jsonl.gz", texts(30)),
        write_parquet(tmp_path / "c.parquet", texts(30)),
    ]
    for path in sources:
        score_file(request(shared_repository, path, tmp_path / path.stem))
    first, *others = [rows(tmp_path / path.stem) for path in sources]
    assert others == [first, first]


def test_sparse_features_are_scored_too(
    shared_repository: Path, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "queries.txt").write_text("3 53 1\n 0:1.0\n 1:0.5\n 0:0.5 1:0.5\n")
    score_file(request(shared_repository, tmp_path / "queries.txt", output))
    assert [(row["query_id"], len(row["labels"])) for row in rows(output)] == [
        ("0", 3),
        ("1", 3),
        ("2", 3),
    ]


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz", "q.parquet", "q.txt"])
def test_an_empty_input_gives_one_empty_part(
    shared_repository: Path, tmp_path: Path, output: Path, name: str
) -> None:
    match name:
        case "q.parquet":
            path = write_parquet(tmp_path / name, [])
        case "q.txt":
            path = tmp_path / name
            path.write_text("0 53 50\n")
        case _:
            path = write_jsonl(tmp_path / name, [])
    summary = score_file(request(shared_repository, path, output))
    assert summary.success.num_rows == 0
    assert [pq.read_table(part).num_rows for part in part_paths(output)] == [0]


def test_a_sparse_file_without_the_rows_that_its_header_claims_is_not_empty(
    shared_repository: Path, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "q.txt").write_text("2 53 50\n")
    with pytest.raises(DataError, match="records: expected 2"):
        score_file(request(shared_repository, tmp_path / "q.txt", output))


def test_the_summary_and_the_record_of_success_count_rows_and_parts(
    shared_repository: Path, source: Path, output: Path
) -> None:
    summary = score_file(request(shared_repository, source, output))
    values = summary.as_dict()
    assert (values["num_rows"], values["num_hits"], values["num_parts"]) == (50, 150, 3)
    assert (values["model"], values["version"], values["k"]) == ("tiny", 1, 3)
    assert (output / "_SUCCESS.json").read_text() == summary.success.model_dump_json(
        indent=2
    ) + "\n"


def test_progress_starts_at_the_rows_that_are_there_and_ends_at_all(
    shared_repository: Path, source: Path, output: Path
) -> None:
    interrupt(shared_repository, source, output, at=24)
    seen: list[RowsDone] = []
    score_file(request(shared_repository, source, output), on_rows=seen.append)
    assert [done.num_rows for done in seen] == [20, 40, 50]
    assert {(done.num_before, done.num_total) for done in seen} == {(20, 50)}


def test_a_broken_line_is_named_and_the_whole_parts_before_it_stay(
    shared_repository: Path, source: Path, output: Path
) -> None:
    lines = source.read_text().splitlines()
    lines[44] = '{"id": "q44", "text": 5}'
    source.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"queries\.jsonl:45: text: expected"):
        score_file(request(shared_repository, source, output))
    assert set(contents(output)) == {"_run.json", "part-00000.parquet", "part-00001.parquet"}


def test_a_repaired_input_is_another_input_and_asks_for_a_restart(
    shared_repository: Path, source: Path, output: Path
) -> None:
    good = source.read_text()
    source.write_text(good + "broken\n")
    with pytest.raises(DataError, match=r"queries\.jsonl:51"):
        score_file(request(shared_repository, source, output))
    source.write_text(good)
    with pytest.raises(OutputError, match=r"input was .* bytes with sha256 .*--restart"):
        score_file(request(shared_repository, source, output))
    score_file(request(shared_repository, source, output, restart=True))
    assert len(rows(output)) == 50


def test_queries_of_a_kind_that_the_model_does_not_take_are_named_by_file_and_line(
    shared_repository: Path, tmp_path: Path, output: Path
) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps({"features": [0.5] * 2}))
    with pytest.raises(DataError, match=r"queries\.jsonl:1: queries: expected one of text,"):
        score_file(request(shared_repository, path, output))


def test_a_run_that_wrote_nothing_leaves_the_folder_to_the_repaired_input(
    shared_repository: Path, source: Path, output: Path
) -> None:
    good = source.read_text()
    source.write_text("broken\n" + good)
    with pytest.raises(DataError, match=r"queries\.jsonl:1"):
        score_file(request(shared_repository, source, output))
    assert contents(output) == {}
    source.write_text(good)
    assert score_file(request(shared_repository, source, output)).success.num_rows == 50


def test_a_query_whose_embedding_overflows_is_named_by_file_and_line(
    shared_repository: Path, tmp_path: Path, output: Path
) -> None:
    path = tmp_path / "queries.txt"
    path.write_text("3 53 1\n 3:1\n 4:1\n 3:3e38 4:3e38\n")
    with pytest.raises(DataError, match=r"queries\.txt:4: queries\.sparse\.values: expected"):
        score_file(request(shared_repository, path, output))


def test_an_input_that_changes_on_the_way_gets_no_further_part(
    shared_repository: Path, source: Path, output: Path
) -> None:
    def touch(done: RowsDone) -> None:
        if done.num_rows == 40:
            os.utime(source, ns=(1, 1))

    with pytest.raises(DataError, match="as it was when the run started"):
        score_file(request(shared_repository, source, output), on_rows=touch)
    assert set(contents(output)) == {"_run.json", "part-00000.parquet"}


def test_more_labels_than_there_are_give_all_labels_and_one_note(
    shared_repository: Path, source: Path, output: Path
) -> None:
    summary = score_file(request(shared_repository, source, output, k=60))
    assert {len(row["labels"]) for row in rows(output)} == {50}
    assert summary.notes == ("k is 60, but the model has 50 labels in all",)


def test_rows_without_a_known_feature_have_no_hits_and_are_counted(
    shared_repository: Path, tmp_path: Path, output: Path
) -> None:
    path = write_jsonl(tmp_path / "queries.jsonl", ["topic7 filler", "", "§§§"])
    summary = score_file(request(shared_repository, path, output))
    assert [len(row["scores"]) for row in rows(output)] == [3, 0, 0]
    assert summary.notes == ("2 rows have no hits: they hold no feature the model knows",)


def test_a_full_disk_leaves_no_part_and_the_run_goes_on_when_there_is_room(
    shared_repository: Path, source: Path, output: Path
) -> None:
    with (
        pytest.raises(OutputError, match=r"part-00000\.parquet: cannot be written: File too large"),
        no_file_longer_than(1500),
    ):
        score_file(request(shared_repository, source, output))
    assert set(contents(output)) == {"_run.json"}
    score_file(request(shared_repository, source, output))
    assert len(rows(output)) == 50


@pytest.mark.parametrize("wrong", [{"model": "other"}, {"version": 9}, {"version": "stable"}])
def test_an_unknown_model_version_or_alias_leaves_an_empty_folder(
    shared_repository: Path, source: Path, output: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(NotFoundError):
        score_file(request(shared_repository, source, output, **wrong))
    assert contents(output) == {}
