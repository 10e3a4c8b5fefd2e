"""What a connection needs of the port that it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from motherlode.server.http2.headers import Metadata
from motherlode.server.http2.limits import ConnectionLimits
from motherlode.server.http2.method import Method

if TYPE_CHECKING:
    from motherlode.server.http2.connection import Connection


class Host(Protocol):
    """What a connection needs of the port that it came to."""

    limits: ConnectionLimits

    def find(self, path: str) -> Method | None:
        """The method of this full name."""

    def admit(self, path: str, metadata: Metadata) -> str:
        """Who asks, or empty for just anyone.

        Raises:
            MotherlodeError: If they may not.
        """

    def connected(self, connection: Connection) -> int:
        """A connection stands; gives its number."""

    def disconnected(self, number: int) -> None:
        """The connection of this number is gone."""

    def settled(self) -> None:
        """A connection that was asked to end has no more calls."""
