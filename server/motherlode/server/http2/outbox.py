"""What a connection writes, sent together for each turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any, final

# What is sent at once, although more may come in the same turn of the loop.
_MAX_BYTES = 2**16


@final
class Outbox:
    """Each write to a socket wakes its reader, which costs more than to put an answer together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes that the peer has not fetched."""
        return self._num_bytes + int(self._transport.get_write_buffer_size())

    def open(self, transport: Any) -> None:
        """Bytes go there from now on; before, and after `close`, they go nowhere."""
        self._transport = transport

    def close(self) -> None:
        """Sends what there is, and nothing more."""
        self._flush()
        self._transport = None

    def put(self, data: bytes, *, at_once: bool) -> None:
        """Sends bytes as they are, together with others of this turn unless that is no use."""
        if self._transport is None:
            return
        self._parts.append(data)
        self._num_bytes += len(data)
        if at_once or self._num_bytes > _MAX_BYTES:
            self._flush()
        elif len(self._parts) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # Emptied first: to write can call back, to say that the peer is slow.
        parts, self._parts, self._num_bytes = self._parts, [], 0
        if parts and self._transport is not None:
            self._transport.write(b"".join(parts))
