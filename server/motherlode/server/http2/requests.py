"""The messages of a caller's stream, for a method that reads them one after another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import final

from typing_extensions import override

from motherlode.server.http2.messages import Packed


@final
class Requests(AsyncIterator[bytes]):
    """Waits for messages; a caller may send no more than the method reads.

    Args:
        grant: Lets the caller send so many bytes more.
        unpack: Gives the message itself.
    """

    def __init__(
        self, grant: Callable[[int], None], unpack: Callable[[bytes | Packed], bytes]
    ) -> None:
        self._grant = grant
        self._unpack = unpack
        self._messages: deque[bytes | Packed] = deque()
        self._num_held_bytes = 0
        self._is_done = False
        self._arrival: asyncio.Future[None] | None = None

    def add(self, messages: Sequence[bytes | Packed], num_bytes: int, *, is_last: bool) -> None:
        """So many bytes have come, and with them these messages."""
        self._messages.extend(messages)
        self._num_held_bytes += num_bytes
        self._is_done = is_last
        if not self._messages:
            self._release()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    @override
    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._is_done:
                raise StopAsyncIteration
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        message = self._messages.popleft()
        if not self._messages:
            self._release()
        return self._unpack(message)

    def _release(self) -> None:
        num_bytes, self._num_held_bytes = self._num_held_bytes, 0
        self._grant(num_bytes)
