from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import OutputError
from motherlode.core.labels import LabelTable
from motherlode.core.topk import TopK
from motherlode.scoring.folder import OutputFolder, claim, part_name
from motherlode.scoring.parts import PartFormat, PartWriter
from tests.support.files import no_file_longer_than
from tests.support.scoring import contents, run_record

RUN = run_record(rows_per_part=2)
FORM = PartFormat(RUN, LabelTable(["a"], None, np.ones(1, int)))


def write_part(folder: OutputFolder, number: int, num_rows: int = 2) -> None:
    with folder.new_file(part_name(number)) as file:
        writer = PartWriter(file, FORM)
        empty = TopK(np.empty(0, int), np.empty(0, np.float32), np.zeros(num_rows, int))
        writer.write([str(number)] * num_rows, empty)
        writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path)
    folder.begin(RUN)
    return folder


def test_a_missing_output_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with claim(tmp_path / "a" / "b") as folder:
        assert folder.path.is_dir()


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        claim(tmp_path),
        pytest.raises(OutputError, match="another scoring run is writing here"),
        claim(tmp_path),
    ):
        pass


def test_a_folder_is_free_again_after_a_run_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path):
        raise ZeroDivisionError
    with claim(tmp_path) as folder:
        assert folder.run() is None


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out: cannot be written"), claim(tmp_path / "out"):
        pass


def test_the_record_of_a_run_is_read_back(folder: OutputFolder) -> None:
    assert folder.run() == RUN


def test_parts_without_a_record_of_their_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "part-00003.parquet").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"part-00003\.parquet: .*_run\.json is missing"):
        OutputFolder(tmp_path).run()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{}", "input: Field required"), ("?", "Invalid JSON"), ('{"format_version": 2}', "version")],
)
def test_a_record_that_is_not_of_a_run_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "_run.json").write_text(text)
    with pytest.raises(OutputError, match=rf"_run\.json: is not a record .*{reason}"):
        OutputFolder(tmp_path).run()


def test_to_begin_removes_only_what_a_run_writes(folder: OutputFolder) -> None:
    own = ["part-00000.parquet", ".part-00001.parquet.tmp", "_SUCCESS.json"]
    foreign = ["part-1.parquet", "part-00000.csv", "notes.txt", ".hidden", "part-00000-a.parquet"]
    for name in own + foreign:
        (folder.path / name).write_text("")
    folder.begin(RUN)
    assert set(contents(folder.path)) == {*foreign, "_run.json"}


def test_a_run_goes_on_after_its_last_whole_part(folder: OutputFolder) -> None:
    write_part(folder, 0)
    write_part(folder, 1)
    assert [part.name for part in folder.resume(RUN)] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


@pytest.mark.parametrize("broken", ["missing", "truncated", "short"])
def test_a_run_goes_on_before_a_part_that_is_not_whole(folder: OutputFolder, broken: str) -> None:
    for number in range(3):
        write_part(folder, number)
    path = folder.path / part_name(1)
    match broken:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-9])
        case "short":
            write_part(folder, 1, num_rows=1)
    assert [part.name for part in folder.resume(RUN)] == ["part-00000.parquet"]
    assert set(contents(folder.path)) == {"_run.json", "part-00000.parquet"}


def test_what_a_killed_run_was_writing_is_removed(folder: OutputFolder) -> None:
    for name in (".part-00000.parquet.tmp", "._run.json-0123456789abcdef"):
        (folder.path / name).write_text("half")
    folder.resume(RUN)
    assert set(contents(folder.path)) == {"_run.json"}


def test_a_finished_run_is_known_by_its_record(folder: OutputFolder) -> None:
    write_part(folder, 0)
    success = folder.finish(RUN, [folder.part(0, RUN)])
    assert folder.success(RUN) == success


def test_a_run_is_not_finished_while_it_has_no_record_of_success(folder: OutputFolder) -> None:
    assert folder.success(RUN) is None


def test_a_finished_run_whose_part_is_gone_is_not_finished(folder: OutputFolder) -> None:
    write_part(folder, 0)
    folder.finish(RUN, [folder.part(0, RUN)])
    (folder.path / part_name(0)).unlink()
    assert folder.success(RUN) is None


def test_a_file_that_fails_on_the_way_does_not_appear(folder: OutputFolder) -> None:
    with pytest.raises(TypeError), folder.new_file("part-00000.parquet") as file:
        file.writelines([b"half", "no bytes"])
    assert set(contents(folder.path)) == {"_run.json"}


def test_a_file_is_hidden_until_it_is_whole(folder: OutputFolder) -> None:
    with folder.new_file("part-00000.parquet") as file:
        file.write(b"half")
        assert not (folder.path / "part-00000.parquet").exists()
    assert (folder.path / "part-00000.parquet").read_bytes() == b"half"


def test_a_full_disk_at_the_last_flush_names_the_file_and_leaves_nothing(
    folder: OutputFolder,
) -> None:
    with (
        pytest.raises(OutputError, match=r"part-00000\.parquet: cannot be written: File too large"),
        no_file_longer_than(1000),
        folder.new_file("part-00000.parquet") as file,
    ):
        file.write(bytes(2000))
    assert set(contents(folder.path)) == {"_run.json"}


def test_a_full_disk_at_fsync_names_the_file_and_leaves_nothing(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(OutputError, match=r"part-00000\.parquet: .* No space left on device"),
        folder.new_file("part-00000.parquet") as file,
    ):
        file.write(b"all")
    assert set(contents(folder.path)) == {"_run.json"}


def test_a_folder_that_cannot_take_the_record_of_the_run_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"_run\.json: cannot be written"),
        no_file_longer_than(10),
    ):
        OutputFolder(tmp_path).begin(RUN)
    assert contents(tmp_path) == {}
