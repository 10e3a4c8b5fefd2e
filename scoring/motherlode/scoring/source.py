"""The input file: what identifies it, how long it is, and that it stays as it was."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast, final

import pyarrow as pa
import pyarrow.parquet as pq

from motherlode.core.errors import DataError
from motherlode.core.records.messages import Words
from motherlode.core.records.reader import format_of
from motherlode.scoring.records import InputRecord

_CHUNK_BYTES = 1 << 20


@final
@dataclass(frozen=True, slots=True)
class Source:
    """The input file as it was when the run started.

    Attributes:
        path: Where it lies.
        record: Its name, size and content digest.
        stamp: Inode, size and time of the last change.
    """

    path: Path
    record: InputRecord
    stamp: tuple[int, int, int]

    def check_unchanged(self) -> None:
        """Fails if somebody wrote to the file, so that no part mixes two inputs.

        Raises:
            DataError: If inode, size or time of the last change moved, or the file is gone.
        """
        try:
            stamp = _stamp(self.path.stat())
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if stamp != self.stamp:
            expected = "the file as it was when the run started"
            raise DataError(self.path, None, "input", expected=expected, actual="another content")


def identify(path: Path) -> Source:
    """The file with the digest of its content; reads all of it once.

    Raises:
        DataError: If it is not a readable file, or its name stands for no format.
    """
    # A pipe or a device could not be read twice.
    if path.exists() and not (path.is_file() or path.is_dir()):
        actual = Words("something else")
        raise DataError(path, None, "input", expected="a readable file", actual=actual)
    try:
        with path.open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
    format_of(path)
    return Source(path, InputRecord(name=path.name, size_bytes=stamp[1], sha256=sha256), stamp)


def count_rows(path: Path) -> int | None:
    """Rows of the file: 0 if it surely has none, else for a progress bar; None if unknown.

    They come from the footer of a Parquet file and are the lines of the others; the header of an XC
    file counts where it claims more rows than there are, since reading will say what is wrong.
    """
    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        if path.suffix == ".gz" and path.stat().st_size == 0:
            return None
        num_lines, first = _count_lines(path)
        if path.name.endswith((".txt", ".txt.gz")) and num_lines:
            return _count_records(first, num_lines)
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError, IndexError):
        return None  # whoever reads the records names what is wrong
    return num_lines


def _count_records(header: bytes, num_lines: int) -> int | None:
    counts = header.split()
    if len(counts) != 3 or not all(map(bytes.isdigit, counts)):
        return None
    return max(int(counts[0]), num_lines - 1)


def _count_lines(path: Path) -> tuple[int, bytes]:
    """How many lines there are, and the start of the first."""
    with ExitStack() as files:
        file: IO[bytes] = files.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            file = cast("IO[bytes]", files.enter_context(gzip.GzipFile(fileobj=file)))
        first = file.readline(1000)
        num_lines, last = first.count(b"\n"), first
        while chunk := file.read(_CHUNK_BYTES):
            num_lines, last = num_lines + chunk.count(b"\n"), chunk
        return num_lines + (last != b"" and not last.endswith(b"\n")), first


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(path, None, "input", expected="a readable file", actual=error.strerror)
