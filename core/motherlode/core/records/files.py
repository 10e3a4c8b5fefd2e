"""Lines of a text file, compressed or not, with errors that name the line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from motherlode.core.errors import DataError
from motherlode.core.records.messages import Words

_BUFFER_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and the lines of a UTF-8 file, without their line ends.

    A name that ends in `.gz` is decompressed; a byte order mark at the start is dropped.

    Raises:
        DataError: If the file is missing or unreadable, a gzip stream is broken or cut short, or
            bytes are not UTF-8.
    """
    number = 0
    with _opened(path) as stream:
        try:
            for number, raw in enumerate(stream, 1):
                line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
                yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            actual = f"byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
            raise DataError(path, number, "line", expected="UTF-8", actual=Words(actual)) from error
        # No line: what is unpacked ahead of the lines is where the stream is broken.
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                path, None, "gzip stream", expected="a whole one", actual=Words(str(error))
            ) from error


def require_file(path: Path) -> None:
    """Checks that a file is there.

    Raises:
        DataError: If nothing or a folder is.
    """
    if not path.is_file():
        actual = "a folder" if path.is_dir() else "nothing at this path"
        raise DataError(path, None, "file", expected="a readable file", actual=Words(actual))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    require_file(path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(
            path,
            None,
            "file",
            expected="a readable file",
            actual=Words(error.strerror or str(error)),
        ) from error
    with raw:
        if path.suffix == ".gz":
            if not raw.peek(1):
                # GzipFile would take it for an empty file that was compressed.
                raise DataError(
                    path, None, "gzip stream", expected="a whole one", actual=Words("no bytes")
                )
            # GzipFile finds lines in Python; a buffer around it does so in C.
            unzipped = io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"), _BUFFER_BYTES)
            with unzipped:
                yield unzipped
        else:
            yield raw
