"""What passed through connections, for `grpc.channelz`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(slots=True)
class Counts:
    """Sums over one connection, or several.

    Attributes:
        num_started: Calls that came.
        num_succeeded: Calls that ended with OK.
        num_failed: Calls that ended in another way.
        num_sent: Messages sent.
        num_received: Messages received.
        num_pings: Signs asked for.
        last_started: Time of the event loop when the last call came; 0 for never.
    """

    num_started: int = 0
    num_succeeded: int = 0
    num_failed: int = 0
    num_sent: int = 0
    num_received: int = 0
    num_pings: int = 0
    last_started: float = 0.0

    def add(self, other: Counts) -> None:
        """Adds what passed through others."""
        self.num_started += other.num_started
        self.num_succeeded += other.num_succeeded
        self.num_failed += other.num_failed
        self.num_sent += other.num_sent
        self.num_received += other.num_received
        self.num_pings += other.num_pings
        self.last_started = max(self.last_started, other.last_started)
