from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from motherlode.core.repository import Repository
from motherlode.server.survey import Sighting, fingerprint, look_at, model_names


def make_version(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("not even JSON", encoding="utf-8")


def seen(repository: Path, model: str) -> Sighting:
    sighting = look_at(Repository(repository), model)
    assert sighting is not None
    return sighting


def test_versions_with_a_manifest_are_seen_newest_first_good_or_bad(tmp_path: Path) -> None:
    for version in (1, 3, 2):
        make_version(tmp_path / "m" / f"{version:06d}")
    assert seen(tmp_path, "m").versions == (3, 2, 1)


@pytest.mark.parametrize("name", [".staging-1", "7", "x00007", "000000", "-00001", "9" * 19])
def test_a_folder_that_is_no_version_is_not_seen(tmp_path: Path, name: str) -> None:
    make_version(tmp_path / "m" / name)
    assert seen(tmp_path, "m").versions == ()


def test_a_folder_without_a_manifest_is_still_being_copied(tmp_path: Path) -> None:
    (tmp_path / "m" / "000001").mkdir(parents=True)
    assert seen(tmp_path, "m").versions == ()


def test_files_and_hidden_folders_are_no_models(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert model_names(Repository(tmp_path), ()) == []
    for name in (".hidden", "notes.txt", "none", "../elsewhere", ""):
        assert look_at(Repository(tmp_path), name) is None


def test_names_are_of_all_models_or_those_that_are_wanted(tmp_path: Path) -> None:
    for name in ("two", "one"):
        make_version(tmp_path / name / "000001")
    assert model_names(Repository(tmp_path), ()) == ["one", "two"]
    assert model_names(Repository(tmp_path), ("two", "three")) == ["two"]


def test_to_name_the_models_takes_no_look_into_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    scandir = os.scandir
    make_version(tmp_path / "one" / "000001")
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scandir(path))
    assert model_names(Repository(tmp_path), ()) == ["one"]
    assert looked == [tmp_path]


def test_aliases_come_along(tmp_path: Path) -> None:
    make_version(tmp_path / "m" / "000001")
    (tmp_path / "m" / "aliases.json").write_text('{"stable": 1}', encoding="utf-8")
    assert seen(tmp_path, "m").aliases == {"stable": 1}


def test_broken_aliases_are_told_and_hide_no_version(tmp_path: Path) -> None:
    make_version(tmp_path / "m" / "000001")
    (tmp_path / "m" / "aliases.json").write_text("{", encoding="utf-8")
    model = seen(tmp_path, "m")
    assert (model.versions, model.aliases) == ((1,), None)
    assert "aliases.json" in model.error


def test_a_model_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        make_version(tmp_path / name / "000001")
    scandir = os.scandir

    def refuse_one(path: Path) -> object:
        if Path(path).name == "one":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)
    assert model_names(Repository(tmp_path), ()) == ["one", "two"]
    assert seen(tmp_path, "two").versions == (1,)
    one = seen(tmp_path, "one")
    assert (one.versions, one.aliases) == ((), None)
    assert "one: Permission denied" in one.error


def test_a_repository_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        model_names(Repository(tmp_path / "gone"), ())
    with pytest.raises(FileNotFoundError):
        look_at(Repository(tmp_path / "gone"), "m")


def test_a_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = fingerprint(tmp_path)
    (tmp_path / "a" / "file").write_bytes(b"1")
    second = fingerprint(tmp_path)
    (tmp_path / "a" / "file").write_bytes(b"12")
    third = fingerprint(tmp_path)
    assert len({first, second, third}) == 3
    assert fingerprint(tmp_path) == third


def test_a_version_that_nobody_may_look_into_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        (tmp_path / "one" / f"{version:06d}").mkdir(parents=True)
        (tmp_path / "one" / f"{version:06d}" / "manifest.json").touch()
    exists = Path.exists

    def forbidden(path: Path) -> bool:
        if path.parent.name == "000002":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", forbidden)
    # A load of the second one then says why it cannot be read.
    assert seen(tmp_path, "one").versions == (2, 1)
