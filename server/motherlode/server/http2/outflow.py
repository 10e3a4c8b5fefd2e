"""What waits to be sent on a connection, and the room that its peer has for it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, final

from motherlode.server.http2 import frames
from motherlode.server.http2.frames import Code, ConnectionFaultError

if TYPE_CHECKING:
    from motherlode.server.http2.stream import Stream


@final
class Outflow:
    """Flow control of one connection's answers.

    A stream waits here only while it could send if the connection let it, so each look at one
    sends something, however many there are.

    Attributes:
        window: Bytes that the peer has room for in all streams together.
        stream_window: Bytes that it has room for in a new stream.
        frame_bytes: Largest frame that it takes.
        is_paused: Whether the peer does not even fetch what was sent.
        num_unsent: Bytes of answers that there was no room for.
    """

    def __init__(self) -> None:
        self.window = self.stream_window = frames.INITIAL_WINDOW
        self.frame_bytes = frames.INITIAL_FRAME_BYTES
        self.is_paused = False
        self.num_unsent = 0
        self._waiting: OrderedDict[int, Stream] = OrderedDict()

    @property
    def room(self) -> int:
        """Largest DATA frame that can be sent now; negative where none can."""
        return -1 if self.is_paused else min(self.window, self.frame_bytes)

    def add(self, stream: Stream) -> None:
        """A stream has something to send, and room for it in its own window."""
        self._waiting[stream.id] = stream

    def remove(self, stream: Stream) -> None:
        """A stream has nothing more to send, or no room."""
        self._waiting.pop(stream.id, None)

    def widen(self, increment: int) -> None:
        """The peer has room for more.

        Raises:
            ConnectionFaultError: If it is more than a window can be.
        """
        self.window = checked_window(self.window + increment)
        if self._waiting:
            self.pump()

    def pump(self) -> None:
        """Sends what waits, one frame of each stream in turn, as long as there is room."""
        while self._waiting and self.room > 0:
            # A stream that has more comes after the others.
            _, stream = self._waiting.popitem(last=False)
            stream.pump()


def checked_window(size: int) -> int:
    """A window of this size.

    Raises:
        ConnectionFaultError: If there is none so large.
    """
    if size > frames.LARGEST_WINDOW:
        raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, f"a window of {size} bytes")
    return size
