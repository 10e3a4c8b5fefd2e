"""One call: its stream of HTTP/2, and what its method may ask of it and do with it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn, final

import grpc

from motherlode.core.errors import InvalidInputError, MotherlodeError
from motherlode.server.correlation import begin_call
from motherlode.server.http2.frames import (
    Code,
    ConnectionFaultError,
    Kind,
    frame,
    head,
    rst_stream,
    window_update,
)
from motherlode.server.http2.headers import Metadata, RequestHead, block_of, percent_encoded
from motherlode.server.http2.messages import ACCEPTED_ENCODINGS, MessageReader, Packed, prefixed
from motherlode.server.http2.method import CallEndedError, Method
from motherlode.server.http2.outflow import checked_window
from motherlode.server.http2.requests import Requests
from motherlode.server.status import failure_of

if TYPE_CHECKING:
    from motherlode.server.http2.connection import Connection

logger = logging.getLogger(__name__)

# Room for a caller's bytes in one stream.
STREAM_WINDOW = 2**20
_START = block_of(
    [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
)
_OK = block_of([("grpc-status", "0")])
# Of a caller whose call is refused.
_LONGEST_SILENCE_S = 0.1


@final
class Stream:
    """The context of one call, with the names that gRPC's asyncio servers give it.

    Args:
        connection: Where it came on.
        stream_id: Its number there.
        head: What its headers say.
        method: Answers it.

    Attributes:
        id: Its number in the connection.
        caller: Who asks: the name of a key, or the connection.
        context: That of the call: whatever is done for it and may be logged is done there.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_credit",
        "_drained",
        "_end",
        "_expires_at",
        "_has_begun",
        "_has_started",
        "_head",
        "_is_good",
        "_is_heard_out",
        "_is_over",
        "_method",
        "_num_held",
        "_num_ungranted",
        "_reader",
        "_refusal",
        "_requests",
        "_task",
        "_timer",
        "_trailers",
        "_unsent",
        "caller",
        "context",
        "id",
    )

    def __init__(
        self, connection: Connection, stream_id: int, head: RequestHead, method: Method
    ) -> None:
        self.id = stream_id
        self.caller = connection.peer
        self.context = copy_context()
        self._connection = connection
        self._head = head
        self._method = method
        self._reader = MessageReader(head.encoding, connection.limits.max_message_bytes)
        self._refusal: CallEndedError | None = None
        self._requests: Requests | None = None
        # In every end of it.
        self._trailers: Metadata = self.context.run(begin_call, head.metadata)
        # Whether its method was called, and whether its answer has headers.
        self._has_begun = self._has_started = False
        self._is_good = self._is_over = self._is_heard_out = False
        # Bytes that came and were not read yet; and that were, and may come again.
        self._num_held = self._num_ungranted = 0
        # The peer's room, beyond what it has in a new stream.
        self._credit = 0
        self._unsent = bytearray()
        self._end = b""
        self._drained: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expires_at = 0.0
        if head.timeout_s is not None:
            self._expires_at = connection.loop.time() + head.timeout_s
            self._timer = connection.loop.call_at(self._expires_at, self._expire)

    # What a method may ask and do.

    def peer(self) -> str:
        """Address of the caller."""
        return self._connection.peer

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        if self._timer is None:
            return None
        return max(0.0, self._expires_at - self._connection.loop.time())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call with a status.

        Raises:
            CallEndedError: Always.
        """
        raise CallEndedError(code, details, trailing_metadata)

    async def write(self, response: Any) -> None:
        """Sends one message of many; returns when the peer has taken it in."""
        self._send(self._prefixed(response))
        if self._unsent:
            self._drained = self._connection.loop.create_future()
            await self._drained
        elif self._is_over:
            # Where the method learns of it: it may have much more to say.
            await asyncio.sleep(0)

    # What the connection tells it.

    def begin(self) -> None:
        """Its headers have come."""
        if self._method.takes_stream:
            self._requests = Requests(self._grant, self._unpack_next)
            self._run(self._requests)

    def refuse(self, status: CallEndedError) -> None:
        """Ends the call before its method begins, as soon as the peer has said more than its head.

        Some callers lose a status that comes before they have sent their first message.
        """
        self._refusal = status
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._connection.loop.call_later(_LONGEST_SILENCE_S, self.end, status)

    def receive(self, data: bytes, num_bytes: int, *, is_last: bool) -> None:
        """Bytes of the request have come, in a frame of `num_bytes`.

        Raises:
            ConnectionFaultError: If the peer had no room for them, or had said that it was done.
        """
        self._num_held += num_bytes
        if self._is_heard_out:
            raise ConnectionFaultError(Code.STREAM_CLOSED, "a request goes on after its end")
        if self._num_held + self._num_ungranted > STREAM_WINDOW:
            raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, "more than there is room for")
        self._is_heard_out = is_last
        if self._refusal is not None:
            self.end(self._refusal)
            return
        try:
            self._take(data, num_bytes, is_last=is_last)
        except MotherlodeError as error:
            if self._method.takes_stream or not self._has_begun:
                self.context.run(self._method.note_unread, error)
            self.fail(error)

    def _take(self, data: bytes, num_bytes: int, *, is_last: bool) -> None:
        messages = self._reader.feed(data)
        self._connection.counts.num_received += len(messages)
        if is_last:
            self._reader.finish()
        if self._requests is not None:
            self._requests.add(messages, num_bytes, is_last=is_last)
            return
        if messages and not self._has_begun:
            self._run(self._reader.unpack(messages[0]))
        elif is_last and not self._has_begun:
            raise InvalidInputError("request", expected="one message", actual="none")
        self._grant(num_bytes)

    def _unpack_next(self, message: bytes | Packed) -> bytes:
        """One message of many, where the method wants it."""
        try:
            return self._reader.unpack(message)
        except MotherlodeError as error:
            self._method.note_unread(error)
            raise

    def fail(self, error: Exception) -> None:
        """Ends the call with the status of an error."""
        self.end(CallEndedError(*failure_of(error)))

    def end(self, status: CallEndedError) -> None:
        """Ends the call with a status, whatever its method is at."""
        if self._is_over:
            return
        fields: list[tuple[str, str | bytes]] = [("grpc-status", str(status.code.value[0]))]
        if status.details:
            fields.append(("grpc-message", percent_encoded(status.details)))
        block = block_of([*fields, *status.trailers, *self._trailers])
        if not self._has_started:
            # A status without an answer is one block.
            self._has_started, block = True, _START + block
        self._is_good = False
        self._drop_unsent()
        self._send(b"", head(self.id, block, is_last=True))
        self._stop_task()

    def cancel(self) -> None:
        """Nobody wants the answer any more, nor says anything; nothing is sent."""
        self._is_heard_out = True
        self._is_good = False
        self._close()
        self._stop_task()

    @property
    def window(self) -> int:
        """Bytes that the peer has room for in this stream."""
        return self._connection.outflow.stream_window + self._credit

    def widen(self, increment: int) -> None:
        """The peer has more room, or another measure of it.

        Raises:
            ConnectionFaultError: If it is more than a window can be.
        """
        self._credit += increment
        if checked_window(self.window) > 0 and self._unsent:
            self._connection.outflow.add(self)

    def pump(self) -> None:
        """Sends one frame of what had to wait."""
        outflow = self._connection.outflow
        size = min(len(self._unsent), self.window, outflow.room)
        if size <= 0:
            return
        self._put(bytes(self._unsent[:size]), b"")
        del self._unsent[:size]
        outflow.num_unsent -= size
        if self._unsent:
            if self.window > 0:
                outflow.add(self)
            return
        if self._end:
            self._connection.write(self._end)
            self._close()
        self._wake()

    def _grant(self, num_bytes: int) -> None:
        """So many bytes were read; the peer may send more, once that is worth a frame."""
        self._num_held -= num_bytes
        self._num_ungranted += num_bytes
        is_due = self._num_ungranted >= STREAM_WINDOW // 2
        if is_due and not self._is_heard_out and not self._is_over:
            self._connection.write(window_update(self.id, self._num_ungranted))
            self._num_ungranted = 0

    def _run(self, request: Any) -> None:
        self._has_begun = True
        connection = self._connection
        connection.num_running += 1
        self._task = connection.loop.create_task(self._answer(request), context=self.context)
        self._task.add_done_callback(connection.count_done)

    async def _answer(self, request: Any) -> None:
        try:
            if self._method.is_generator:
                async with aclosing(self._method.behavior(request, self)) as responses:
                    async for response in responses:
                        await self.write(response)
                self._end_well(b"")
            else:
                response = await self._method.behavior(request, self)
                self._end_well(b"" if response is None else self._prefixed(response))
        except CallEndedError as status:
            self._task = None
            self.end(status)
        except asyncio.CancelledError:
            # Usually because the call is over; else the server stops.
            self._task = None
            self.end(CallEndedError(grpc.StatusCode.CANCELLED, "the call was given up"))
        except Exception as error:
            logger.exception("%s failed", self._head.method)
            self._task = None
            self.fail(error)
        finally:
            self._task = None

    def _prefixed(self, response: Any) -> bytes:
        serialize = self._method.serialize
        self._connection.counts.num_sent += 1
        return prefixed(response if serialize is None else serialize(response))

    def _end_well(self, message: bytes) -> None:
        self._is_good = True
        block = _OK + block_of(self._trailers)
        self._send(message, head(self.id, block, is_last=True))

    def _send(self, message: bytes, end: bytes = b"") -> None:
        """Sends a message, and the last frame where there is one, now or when there is room."""
        if self._is_over:
            return
        outflow = self._connection.outflow
        # What is no message needs no room.
        if not self._unsent and (not message or len(message) <= min(self.window, outflow.room)):
            self._put(message, end)
            if end:
                self._close()
            return
        if not self._has_started:
            self._put(b"", b"")
        self._unsent += message
        self._end = end
        outflow.num_unsent += len(message)
        self.widen(0)
        outflow.pump()

    def _put(self, data: bytes, end: bytes) -> None:
        """Writes at most one DATA frame, after the first headers and before the last ones."""
        start = b""
        if not self._has_started:
            self._has_started = True
            start = head(self.id, _START, is_last=False)
        if data:
            size = len(data)
            self._credit -= size
            self._connection.outflow.window -= size
            data = frame(Kind.DATA, 0, self.id, data)
        self._connection.write(start + data + end)

    def _expire(self) -> None:
        self.end(CallEndedError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"))

    def _close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_heard_out:
            # Whatever the peer has to say, nobody listens.
            self._connection.write(rst_stream(self.id, Code.NO_ERROR))
        if self._unsent:
            self._drop_unsent()
        self._requests = None
        self._connection.forget(self, is_good=self._is_good)
        if self._drained is not None:
            self._wake()

    def _stop_task(self) -> None:
        # One that is cancelled before its first step refers to this stream for good.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _drop_unsent(self) -> None:
        outflow = self._connection.outflow
        outflow.num_unsent -= len(self._unsent)
        self._unsent.clear()
        outflow.remove(self)

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
