"""How much a caller may ask of a connection that carries no call forward."""

from __future__ import annotations

from typing import final

from motherlode.server.http2.frames import Code, ConnectionFaultError

# Frames of no use between two looks of the clock, and how many of them a good call makes up for.
_MAX_IDLE_FRAMES = 10_000
_WORTH_OF_A_CALL = 10
# Bytes that the peer does not fetch.
_MAX_UNFETCHED_BYTES = 2**22


@final
class Patience:
    """Counts what costs work and is of no use: resets, pings, settings, windows of a byte.

    Each of them is lawful, and a caller who sends nothing else keeps the event loop from others.
    """

    def __init__(self) -> None:
        self._num_idle_frames = 0

    def spend(self, num_unfetched: int, cost: int = 1) -> None:
        """Something of no use has come.

        Args:
            num_unfetched: Bytes that were sent and that the peer has not fetched.
            cost: How many frames it is as bad as.

        Raises:
            ConnectionFaultError: If that is too much.
        """
        self._num_idle_frames += cost
        if self._num_idle_frames > _MAX_IDLE_FRAMES or num_unfetched > _MAX_UNFETCHED_BYTES:
            raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "too many frames of no use")

    def regain(self) -> None:
        """A call ended well."""
        if self._num_idle_frames > _WORTH_OF_A_CALL:
            self._num_idle_frames -= _WORTH_OF_A_CALL
        else:
            self._num_idle_frames = 0

    def renew(self) -> None:
        """Some time has passed."""
        self._num_idle_frames = 0
