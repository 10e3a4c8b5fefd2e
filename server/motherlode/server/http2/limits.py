"""How much the connections of a port may take, in number, size and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a port grants its callers.

    Attributes:
        max_message_bytes: Largest request.
        max_metadata_bytes: Largest metadata of a call.
        max_connections: Most connections.
        max_calls: Calls of one connection under way at the same time.
        handshake_s: Longest time from the opening of a connection until it can be used.
        keepalive_s: Silence of a connection after which its caller is asked for a sign.
        keepalive_timeout_s: Time for that sign.
        idle_s: Longest life of a connection without a call.
        age_s: Longest life of a connection.
        grace_s: Time for calls under way on a connection that has become too old.
    """

    max_message_bytes: int
    max_metadata_bytes: int
    max_connections: int
    max_calls: int
    handshake_s: float
    keepalive_s: float
    keepalive_timeout_s: float
    idle_s: float
    age_s: float
    grace_s: float
