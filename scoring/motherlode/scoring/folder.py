"""The output folder of one run: claimed by one process, filled part by part, never half-written."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar, final

from pydantic import BaseModel, ValidationError

from motherlode.core.errors import OutputError
from motherlode.core.staging import replace_file, sync
from motherlode.scoring.parts import read_counts
from motherlode.scoring.records import RUN_FILE, SUCCESS_FILE, PartRecord, RunRecord, SuccessRecord

_OWN_NAME = re.compile(r"part-\d{5,}\.parquet|_SUCCESS\.json")
_OWN_TEMPORARY = re.compile(r"\.(part-\d{5,}\.parquet\.tmp|(_SUCCESS|_run)\.json-[0-9a-f]{16})")
_Record = TypeVar("_Record", bound=BaseModel)


@final
class OutputFolder:
    """The folder, held by this process.

    A part is named by its number alone, so a run that goes on writes the names that an
    uninterrupted one would have written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self) -> RunRecord | None:
        """Settings of the run that began here, or None in a folder without any.

        Raises:
            OutputError: If there are parts without a record, or the record is not readable.
        """
        if not (self.path / RUN_FILE).exists():
            self._refuse_foreign_parts()
            return None
        return _read(self.path / RUN_FILE, RunRecord)

    def success(self, run: RunRecord) -> SuccessRecord | None:
        """The record of a finished run, or None if it is not finished or a part is missing."""
        if not (self.path / SUCCESS_FILE).exists():
            return None
        success = _read(self.path / SUCCESS_FILE, SuccessRecord)
        is_whole = all(_size(self.path / part.name) == part.size_bytes for part in success.parts)
        return success if is_whole and success.run == run.digest else None

    def begin(self, run: RunRecord) -> None:
        """Removes what an earlier run wrote and records this one.

        The old record goes last and in one step: parts never lie here without a record.
        """
        self._remove(_OWN_NAME)
        self._remove(_OWN_TEMPORARY)
        self._write_json(RUN_FILE, run)

    def abandon(self) -> None:
        """Removes the record of a run that wrote no part, so that any other may begin here."""
        if not any(_OWN_NAME.fullmatch(path.name) for path in self.path.iterdir()):
            with disk_errors(self.path / RUN_FILE):
                (self.path / RUN_FILE).unlink(missing_ok=True)

    def resume(self, run: RunRecord) -> list[PartRecord]:
        """The whole parts from the first on; whatever else an earlier run left is removed."""
        parts: list[PartRecord] = []
        while (part := self._whole_part(len(parts), run)) is not None:
            parts.append(part)
        self._remove(_OWN_NAME, keep={part.name for part in parts})
        self._remove(_OWN_TEMPORARY)
        return parts

    def finish(self, run: RunRecord, parts: list[PartRecord]) -> SuccessRecord:
        """Records that these parts are all."""
        success = SuccessRecord.of(run, parts)
        self._write_json(SUCCESS_FILE, success)
        return success

    def part(self, number: int, run: RunRecord) -> PartRecord:
        """The record of a whole part, from its footer and its bytes."""
        path = self.path / part_name(number)
        counts = read_counts(path, run)
        assert counts is not None, f"{path} was written by this run"
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return PartRecord(name=path.name, size_bytes=_size(path), sha256=sha256, **counts)

    @contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write; it appears under its name when the block ends well, else not at all.

        Raises:
            OutputError: If the disk is full or the file cannot be written for another reason.
        """
        temporary = self.path / f".{name}.tmp"
        with disk_errors(self.path / name):
            file = temporary.open("wb")
        try:
            yield file
            with disk_errors(self.path / name):
                file.flush()
                os.fsync(file.fileno())
                file.close()
                temporary.replace(self.path / name)
                sync(self.path)
        finally:
            # After a failed flush, to close is to try it again, and to fail again.
            with suppress(OSError):
                file.close()
            temporary.unlink(missing_ok=True)

    def _whole_part(self, number: int, run: RunRecord) -> PartRecord | None:
        counts = read_counts(self.path / part_name(number), run)
        # A shorter part is the last one: it is cheap to write again, and then known to be right.
        is_whole = counts is not None and counts["num_rows"] == run.rows_per_part
        return self.part(number, run) if is_whole else None

    def _write_json(self, name: str, record: BaseModel) -> None:
        with disk_errors(self.path / name):
            replace_file(self.path / name, record.model_dump_json(indent=2) + "\n")

    def _remove(self, pattern: re.Pattern[str], *, keep: set[str] | None = None) -> None:
        for path in sorted(self.path.iterdir()):
            if pattern.fullmatch(path.name) and path.name not in (keep or ()):
                with disk_errors(path):
                    path.unlink()

    def _refuse_foreign_parts(self) -> None:
        names = sorted(p.name for p in self.path.iterdir() if _OWN_NAME.fullmatch(p.name))
        if names:
            reason = (
                f"is not of a scoring run known here ({RUN_FILE} is missing); use another folder"
            )
            raise OutputError(self.path / names[0], reason)


def part_name(number: int) -> str:
    """The file name of a part."""
    return f"part-{number:05d}.parquet"


@contextmanager
def claim(path: Path) -> Iterator[OutputFolder]:
    """The folder, made if missing, locked against other runs until the block ends.

    Raises:
        OutputError: If it is not a folder, cannot be made, or another run holds it.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, path)
        yield OutputFolder(path)
    finally:
        os.close(lock)


def _lock(folder: int, path: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(path, "another scoring run is writing here") from error


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into one that names the file.

    Raises:
        OutputError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(path, f"cannot be written: {error.strerror or error}") from error


def _read(path: Path, kind: type[_Record]) -> _Record:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        reason = f"is not a record of a scoring run ({place}: {first['msg']}); use another folder"
        raise OutputError(path, reason) from error


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return -1
