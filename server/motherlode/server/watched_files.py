"""Files that are read again when they change, and whose last sound content counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, final

from motherlode.core.errors import ConfigError

logger = logging.getLogger(__name__)

ContentT = TypeVar("ContentT")

# Enough for any certificate chain and thousands of keys.
MAX_FILE_BYTES = 4 * 2**20

_ATTEMPTS = 5

# Of each file its number on the disk, its size and the time of its last change; None where it is
# missing.
_Signature = tuple[tuple[int, int, int] | None, ...]


@final
class WatchedFiles(Generic[ContentT]):
    """What a few files hold together.

    Args:
        kind: What that is, for the log.
        paths: The files.
        read: Reads and checks them all; raises ConfigError.

    Raises:
        ConfigError: If they cannot be used as they are.
    """

    def __init__(self, kind: str, paths: Sequence[Path], read: Callable[[], ContentT]) -> None:
        self._kind = kind
        self._paths = tuple(paths)
        self._read = read
        self._signature, self._content = self._read_steady()
        self._fault = ""

    @property
    def content(self) -> ContentT:
        """The last sound content."""
        return self._content

    @property
    def is_stale(self) -> bool:
        """Whether the files hold something newer that cannot be used."""
        return bool(self._fault)

    def look(self) -> None:
        """Reads the files if they have changed; what is wrong with them goes to the log, once."""
        if self._signature == self._sign() and not self._fault:
            return
        try:
            self._signature, self._content = self._read_steady()
        except ConfigError as error:
            # Tried again each time: a certificate may only have to become valid.
            if self._fault != str(error):
                logger.error("the %s stays as it was: %s", self._kind, error)
            self._fault = str(error)
        else:
            logger.info("the %s was read again", self._kind)
            self._fault = ""

    def _read_steady(self) -> tuple[_Signature, ContentT]:
        """What the files hold, all as they were at one time."""
        for _ in range(_ATTEMPTS):
            before = self._sign()
            content = self._read()
            if self._sign() == before:
                return before, content
        names = ", ".join(map(str, self._paths))
        raise ConfigError(names, expected="files at rest", actual="files that change")

    def _sign(self) -> _Signature:
        return tuple(map(_sign, self._paths))


def read_file(field: str, path: Path) -> bytes:
    """The bytes of a file that a setting names.

    Raises:
        ConfigError: If it cannot be read, or is far too long.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        actual = f"{path} ({error.strerror or error})"
        raise ConfigError(field, expected="a readable file", actual=actual) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(field, expected=f"at most {MAX_FILE_BYTES} bytes", actual=str(path))
    return content


def _sign(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
