from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.errors import DataError, NotFoundError, OutputError
from motherlode.core.queries import TextQueries
from motherlode.core.records import RecordBatch
from motherlode.core.repository import Repository
from motherlode.scoring import RowsDone, score_file
from motherlode.scoring.scorer import cut
from tests.support.bundles import publish_tiny
from tests.support.files import no_file_longer_than
from tests.support.scoring import (
    contents,
    part_paths,
    request,
    rows,
    texts,
    write_jsonl,
    write_parquet,
)


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    publish_tiny(path)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one test, which may publish to it."""
    publish_tiny(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input of 50 rows: three parts."""
    return write_jsonl(tmp_path / "queries.jsonl", texts(50))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def stop_at(num_rows: int) -> Callable[[RowsDone], None]:
    def on_rows(done: RowsDone) -> None:
        if done.num_rows >= num_rows:
            raise KeyboardInterrupt

    return on_rows


def interrupt(repository: Path, source: Path, output: Path, *, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        score_file(request(repository, source, output, batch_size=4), on_rows=stop_at(at))


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
        assert piece.ids[0] == str(piece.start) == str(piece.line - 1)
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


@pytest.mark.parametrize("at", [0, 4, 20, 24, 48, 50])
def test_an_interrupted_run_leaves_whole_parts_and_is_completed_to_the_same_bytes(
    shared_repository: Path, source: Path, tmp_path: Path, at: int
) -> None:
    score_file(request(shared_repository, source, tmp_path / "whole"))
    interrupt(shared_repository, source, tmp_path / "cut", at=at)
    assert {"_run.json", *(f"part-{i:05d}.parquet" for i in range((at - 1) // 20))} == set(
        contents(tmp_path / "cut")
    )
    summary = score_file(request(shared_repository, source, tmp_path / "cut"))

    assert summary.num_before == max(0, (at - 1) // 20 * 20)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(
    shared_repository: Path, source: Path, output: Path
) -> None:
    first = score_file(request(shared_repository, source, output))
    times = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    second = score_file(request(shared_repository, source, output))
    assert second.is_nothing_done
    assert not first.is_nothing_done
    assert second.success == first.success
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == times


def test_a_part_that_was_removed_after_the_run_is_written_again(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output))
    whole = contents(output)
    (output / "part-00001.parquet").unlink()
    assert score_file(request(shared_repository, source, output)).num_before == 20
    assert contents(output) == whole


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"k": 4}, "k was 3, is 4;"),
        ({"rows_per_part": 10}, "rows_per_part was 20, is 10;"),
        ({"k": 4, "rows_per_part": 10}, "k was 3, is 4, rows_per_part was 20, is 10;"),
    ],
)
def test_a_run_with_other_settings_is_refused_with_what_differs(
    shared_repository: Path,
    source: Path,
    output: Path,
    settings: dict[str, int],
    difference: str,
    is_finished: bool,
) -> None:
    interrupt(shared_repository, source, output, at=24)
    if is_finished:
        score_file(request(shared_repository, source, output))
    before = contents(output)
    with pytest.raises(OutputError, match=f"other settings: {difference}"):
        score_file(request(shared_repository, source, output, **settings))
    assert contents(output) == before


def test_a_restart_drops_the_old_run_and_nothing_else(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output))
    (output / "notes.txt").write_text("mine")
    score_file(request(shared_repository, source, output, k=4, rows_per_part=40, restart=True))
    assert set(contents(output)) == {
        "_SUCCESS.json",
        "_run.json",
        "notes.txt",
        "part-00000.parquet",
        "part-00001.parquet",
    }
    assert {len(row["labels"]) for row in rows(output)} == {4}


def test_a_restart_that_cannot_start_leaves_the_old_run(
    shared_repository: Path, source: Path, output: Path
) -> None:
    score_file(request(shared_repository, source, output))
    before = contents(output)
    with pytest.raises(NotFoundError):
        score_file(request(shared_repository, source, output, model="other", restart=True))
    assert contents(output) == before


def test_a_restart_does_not_remove_parts_of_somebody_else(
    shared_repository: Path, source: Path, output: Path
) -> None:
    write_parquet(tmp := output.parent / "part-00000.parquet", ["theirs"])
    output.mkdir()
    tmp.rename(output / tmp.name)
    before = contents(output)
    with pytest.raises(OutputError, match="use another folder"):
        score_file(request(shared_repository, source, output, restart=True))
    assert contents(output) == before


def test_a_run_goes_on_with_its_version_after_a_newer_one_was_published(
    repository: Path, source: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(repository, source, output, at=24)
    publish_tiny(repository, seed=1)
    summary = score_file(request(repository, source, output))
    assert summary.run.version == 1
    assert {row["version"] for row in rows(output)} == {1}
    assert "keeps to version 1, with which it began; now it would take version 2" in caplog.text


def test_a_run_goes_on_with_its_version_after_its_alias_has_moved(
    repository: Path, source: Path, output: Path
) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    settings = {"version": "stable"}
    score_file(request(repository, source, output, **settings))
    (output / "_SUCCESS.json").unlink()
    publish_tiny(repository, seed=1)
    Repository(repository).set_alias("tiny", "stable", 2)
    assert score_file(request(repository, source, output, **settings)).run.version == 1


def test_a_restart_takes_the_newest_version(repository: Path, source: Path, output: Path) -> None:
    interrupt(repository, source, output, at=24)
    publish_tiny(repository, seed=1)
    assert score_file(request(repository, source, output, restart=True)).run.version == 2


def test_the_version_of_the_run_may_be_named_outright(
    repository: Path, source: Path, output: Path
) -> None:
    interrupt(repository, source, output, at=24)
    publish_tiny(repository, seed=1)
    assert score_file(request(repository, source, output, version=1)).num_before == 20


def test_another_version_named_outright_is_refused(
    repository: Path, source: Path, output: Path
) -> None:
    interrupt(repository, source, output, at=24)
    publish_tiny(repository, seed=1)
    with pytest.raises(OutputError, match="version was 1, is 2, bundle_digest was"):
        score_file(request(repository, source, output, version=2))


def test_a_run_whose_version_is_gone_says_so_and_how_to_begin_anew(
    repository: Path, source: Path, output: Path
) -> None:
    interrupt(repository, source, output, at=24)
    publish_tiny(repository, seed=1)
    Repository(repository).retire("tiny", keep=1)
    with pytest.raises(OutputError, match=r"tiny@1, which cannot be loaded: .*--restart"):
        score_file(request(repository, source, output))


def test_a_finished_run_does_not_need_its_version_any_more(
    repository: Path, source: Path, output: Path
) -> None:
    score_file(request(repository, source, output))
    publish_tiny(repository, seed=1)
    Repository(repository).retire("tiny", keep=1)
    assert score_file(request(repository, source, output)).is_nothing_done


def test_the_same_version_number_in_another_repository_is_another_bundle(
    shared_repository: Path, source: Path, output: Path, tmp_path: Path
) -> None:
    score_file(request(shared_repository, source, output))
    publish_tiny(tmp_path / "other", seed=1)
    with pytest.raises(OutputError, match=r"other settings: bundle_digest was \w{12}, is"):
        score_file(request(tmp_path / "other", source, output))


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
    path.write_text(json.dumps({"features": [0.5] * 53}))
    with pytest.raises(DataError, match=r"queries\.jsonl:1: queries: expected one of text,"):
        score_file(request(shared_repository, path, output))
    assert set(contents(output)) == {"_run.json"}


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
