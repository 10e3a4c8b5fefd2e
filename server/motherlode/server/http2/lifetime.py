"""What the clock asks of a connection: to get under way, to give a sign, to make room."""

from __future__ import annotations

from enum import Enum, auto
from typing import final

from motherlode.server.http2.limits import ConnectionLimits


@final
class Due(Enum):
    """What is to be done with a connection."""

    NOTHING = auto()
    PING = auto()
    # It is to take no further calls.
    DRAIN = auto()
    # It was drained, and still has calls.
    END = auto()
    # Nobody is there to be told.
    ABORT = auto()


@final
class Lifetime:
    """The times of one connection; all by the event loop's clock, in seconds.

    Attributes:
        heard: When the peer sent something last.
        used: When a call began or ended last.
        pinged: When the peer was asked for a sign that did not come; None where it was not.
        drained: When the peer was asked for no further calls; None where it was not.
    """

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self._limits = limits
        self._opened = self.heard = self.used = now
        self.pinged: float | None = None
        self.drained: float | None = None

    def due(self, now: float, *, is_under_way: bool, has_calls: bool) -> Due:
        """What is to be done now.

        Args:
            now: The time.
            is_under_way: Whether the peer has begun to speak HTTP/2.
            has_calls: Whether calls are under way.
        """
        limits = self._limits
        if not is_under_way:
            return Due.ABORT if now - self._opened > limits.handshake_s else Due.NOTHING
        if self.drained is not None:
            return Due.END if now - self.drained > limits.grace_s else self._sign_due(now)
        is_idle = not has_calls and now - self.used > limits.idle_s
        if is_idle or now - self._opened > limits.age_s:
            return Due.DRAIN
        return self._sign_due(now)

    def _sign_due(self, now: float) -> Due:
        if self.pinged is not None:
            is_late = now - self.pinged > self._limits.keepalive_timeout_s
            return Due.ABORT if is_late else Due.NOTHING
        return Due.PING if now - self.heard > self._limits.keepalive_s else Due.NOTHING
