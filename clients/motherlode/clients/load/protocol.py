"""What a load is made of: the calls that one kind of server understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

__all__ = ["OK", "Answer", "LoadProtocol"]

OK = "OK"
"""The status of a call that was answered as it should be."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended.

    Attributes:
        status: `OK`, or the name of what went wrong, such as gRPC's RESOURCE_EXHAUSTED.
        message: What the server said of it; empty if all is well.
    """

    status: str
    message: str = ""


class LoadProtocol(Protocol):
    """Calls to one server; write another one to test another kind of server.

    `connect` is awaited once before the first call, `close` once after the last, all of them within
    one event loop.
    """

    @property
    def queries_per_call(self) -> int:
        """Queries that each call asks."""

    async def connect(self) -> str:
        """Opens all connections and makes one call on each.

        Returns:
            What answered, for people: `geonames@7`, say.

        Raises:
            ClientError: If a call is not answered, or the server is not one to load.
        """

    async def call(self, number: int) -> Answer:
        """Makes one call; the same number is the same question. Any failure is an answer too."""

    async def close(self) -> None:
        """Lets go of the connections; calls under way are cancelled."""
