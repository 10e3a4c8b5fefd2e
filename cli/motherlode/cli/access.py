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
        """What the clients call `tls`."""
        from motherlode.clients import Tls  # noqa: PLC0415

        files = (self.tls_ca, self.tls_cert, self.tls_key)
        return Tls(*files) if self.tls or any(files) else None

    def key(self) -> str | None:
        """The key; None if there is none.

        Raises:
            ConfigError: If the file holds anything but one key.
        """
        if self.key_file is None:
            return os.environ.get(_KEY_VARIABLE) or None
        words = self.key_file.read_text(encoding="utf-8", errors="replace").split()
        if len(words) != 1:
            from motherlode.core.errors import ConfigError  # noqa: PLC0415

            expected = "a file that holds one key and nothing else"
            raise ConfigError("--key-file", expected=expected, actual=str(self.key_file))
        return words[0]
