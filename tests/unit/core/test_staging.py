from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from motherlode.core import staging
from motherlode.core.staging import (
    locked,
    remove_leftovers,
    replace_file,
    staging_folder,
    sync_tree,
)


def test_a_staging_folder_is_gone_afterwards_unless_renamed(tmp_path: Path) -> None:
    with staging_folder(tmp_path) as folder:
        (folder / "x").touch()
    assert list(tmp_path.iterdir()) == []
    with staging_folder(tmp_path) as folder:
        folder.rename(tmp_path / "kept")
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_a_failure_inside_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staging_folder(tmp_path) as folder:
            (folder / "x").touch()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_taken_for_a_leftover_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another publisher removes the lock's file between its creation and the locking."""
    really_lock, removed = staging._try_lock, []

    def lose_the_first(file: int) -> bool:
        if not removed:
            (path,) = tmp_path.glob("*.lock")
            path.unlink()
            removed.append(path)
        return really_lock(file)

    monkeypatch.setattr(staging, "_try_lock", lose_the_first)
    with staging_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert [path.name for path in tmp_path.glob("*.lock")] == [f"{folder.name}.lock"]


def test_a_leftover_that_cannot_be_removed_keeps_its_lock_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".staging-0").mkdir()
    (tmp_path / ".staging-0.lock").touch()
    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "rmtree", lambda *_, **__: None)
        remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_has_the_new_text_and_no_trace_of_the_way(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    replace_file(path, "old")
    replace_file(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_every_file_and_folder_is_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "x").touch()
    (tmp_path / "y").touch()
    synced: list[os.stat_result] = []
    monkeypatch.setattr(staging.os, "fsync", lambda file: synced.append(os.fstat(file)))
    sync_tree(tmp_path)
    expected = [tmp_path, tmp_path / "index", tmp_path / "index" / "x", tmp_path / "y"]
    assert sorted(s.st_ino for s in synced) == sorted(path.stat().st_ino for path in expected)


def test_a_lock_that_another_holds_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_LONGEST_WAIT_S", 0.0)
    too_late = pytest.raises(TimeoutError, match="another process holds")
    with locked(tmp_path / "lock"), too_late, locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_a_lock_file_of_another_user_can_be_held_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    path.touch()
    opened = os.open

    def not_to_write(file: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return opened(file, flags, *mode)

    monkeypatch.setattr(os, "open", not_to_write)
    with locked(path):
        monkeypatch.setattr("motherlode.core.staging._LONGEST_WAIT_S", 0.0)
        with pytest.raises(TimeoutError), locked(path):
            pass
