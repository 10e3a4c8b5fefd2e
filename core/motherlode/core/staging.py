"""Files and folders that appear whole or not at all, whatever happens to their writer.

A writer works in a hidden folder beside the place where the result is to appear, and holds a lock
on a file of the same name with `.lock` after it. The kernel drops the lock when the process ends,
however it ends; so a staging folder whose lock can be had belongs to nobody and may go.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".staging-"
_REMOVED_PREFIX = ".removed-"
_LOCK_SUFFIX = ".lock"
# Of waiting for a lock, which nobody of ours holds for more than the writing of a small file.
_LONGEST_WAIT_S = 10.0
_POLL_S = 0.01

logger = logging.getLogger(__name__)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A new hidden folder in `parent`, gone at the end unless it was renamed.

    What writers that died have left in `parent` is removed first.

    Raises:
        OSError: If the folder cannot be made.
    """
    remove_leftovers(parent)
    lock_path, lock = _new_lock(parent)
    folder = lock_path.with_name(lock_path.name.removesuffix(_LOCK_SUFFIX))
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock_path.unlink(missing_ok=True)
        os.close(lock)


def remove_leftovers(parent: Path) -> None:
    """Removes what dead writers and interrupted removals have left in `parent`."""
    for lock_path in parent.glob(f"{_PREFIX}*{_LOCK_SUFFIX}"):
        _remove_if_dead(lock_path)
    for folder in parent.glob(f"{_REMOVED_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def hide_folder(folder: Path) -> Path:
    """Puts a folder out of sight, so that nobody sees a part of it while it is removed.

    Returns:
        Where it is; if it is not removed, `remove_leftovers` does that.

    Raises:
        OSError: If it cannot be renamed.
    """
    hidden = folder.with_name(f"{_REMOVED_PREFIX}{secrets.token_hex(8)}")
    folder.rename(hidden)
    return hidden


def remove_replacements(path: Path) -> None:
    """Removes what killed writers of the file at `path` have left beside it.

    Whoever calls holds the lock that its writers hold.
    """
    for temporary in path.parent.glob(f".{path.name}-*"):
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock on the file at `path`, made if missing; waits a while for other holders.

    Raises:
        TimeoutError: If another process holds it for longer than any of ours would.
        OSError: If it can be neither made nor opened.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        # Another user's. Only some network file systems lock nothing that was opened to read.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while not _is_locked(file):
            if time.monotonic() > deadline:
                reason = "another process holds the lock"
                raise TimeoutError(errno.ETIMEDOUT, reason, str(path))
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def replace_file(path: Path, text: str) -> None:
    """Writes a text file such that a reader finds the old content or the new, never a part.

    Raises:
        OSError: If it cannot be written; the old file is then as it was.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Brings a folder with all files and folders in it to the disk."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Brings one file, or the entries of one folder, to the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _new_lock(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"{_PREFIX}{secrets.token_hex(8)}{_LOCK_SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        # Another publisher may take a file that is not locked yet for a leftover; then try another.
        if _try_lock(file) and _is_at(file, path):
            return path, file
        os.close(file)


def _remove_if_dead(lock_path: Path) -> None:
    with suppress(OSError):
        file = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _try_lock(file) and _is_at(file, lock_path):
                folder = lock_path.with_name(lock_path.name.removesuffix(_LOCK_SUFFIX))
                logger.info("removing %s, left by a publisher that died", folder)
                shutil.rmtree(folder, ignore_errors=True)
                # Kept if a part of the folder is still there, so that the next publisher sees it.
                if not folder.exists():
                    lock_path.unlink(missing_ok=True)
        finally:
            os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
