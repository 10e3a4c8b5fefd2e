"""How a command proves who it is to a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from motherlode.clients import Tls

__all__ = ["Access"]

_KEY_VARIABLE = "MOTHERLODE_KEY"
_GROUP = Group("Access to the server", sort_key=50)


@final
@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Flags of every command that calls a server.

    A key is never an argument: everyone on the machine can read the arguments of a process.

    Attributes:
        tls: Encrypt, and trust the roots that gRPC brings along; the flags below imply it.
        tls_ca: PEM file of the roots that the server's certificate may come from.
        tls_cert: PEM file of a certificate of one's own, for a server that asks for one.
        tls_key: PEM file of that certificate's private key.
        key_file: File that holds the key to call with; else the variable MOTHERLODE_KEY does.
    """

    tls: Annotated[bool, Parameter(negative=())] = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    key_file: Path | None = None

    def encryption(self) -> Tls | None:
        """What the clients call `tls`.

        Raises:
            ConfigError: If a file cannot be read.
        """
        from motherlode.clients import Tls  # noqa: PLC0415

        flags = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        for flag, file in flags.items():
            if file is not None:
                _read(flag, file)
        files = flags.values()
        return Tls(*files) if self.tls or any(files) else None

    def key(self) -> str | None:
        """The key; None if there is none.

        Raises:
            ConfigError: If the file cannot be read, or holds anything but one key.
        """
        if self.key_file is None:
            return os.environ.get(_KEY_VARIABLE) or None
        words = _read("--key-file", self.key_file).decode("utf-8", errors="replace").split()
        if len(words) != 1:
            expected = "a file that holds one key and nothing else"
            raise _config_error("--key-file", expected, str(self.key_file))
        return words[0]


def _read(flag: str, file: Path) -> bytes:
    """What a file holds; where it cannot be read, the error names the flag."""
    try:
        return file.read_bytes()
    except OSError as error:
        expected = f"a readable file ({error.strerror or error})"
        raise _config_error(flag, expected, str(file)) from error


def _config_error(flag: str, expected: str, actual: str) -> Exception:
    # Imported here: a command that is right needs nothing of it.
    from motherlode.core.errors import ConfigError  # noqa: PLC0415

    return ConfigError(flag, expected=expected, actual=actual)
