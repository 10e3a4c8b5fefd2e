from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core.errors import NotFoundError, OutputError
from motherlode.core.repository import Repository
from motherlode.scoring import score_file
from tests.support.bundles import publish_tiny
from tests.support.scoring import (
    contents,
    interrupt,
    request,
    rows,
    write_parquet,
)


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
