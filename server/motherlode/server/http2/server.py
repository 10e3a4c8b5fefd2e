"""Listens at an address, and looks after the connections that come."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, final

from motherlode.server.http2.connection import Connection
from motherlode.server.http2.counts import Counts
from motherlode.server.http2.headers import Metadata
from motherlode.server.http2.limits import ConnectionLimits
from motherlode.server.http2.method import Method

logger = logging.getLogger(__name__)

_BACKLOG = 1024
# Between two looks at the connections: as often as the shortest of their times asks for, and this.
_LONGEST_PAUSE_S = 1.0
_SHORTEST_PAUSE_S = 0.005
# After the system has no descriptors left, for some to be given back.
_BREATH_S = 0.1
# For callers to learn that the server stops.
_FAREWELL_S = 1.0

Guard = Callable[[str, Metadata], str]


@final
class GrpcServer:
    """One port and its connections.

    Args:
        find: Gives a method by its full name.
        limits: How much connections may take.
        tls: Gives what the next handshake is made with; None for plain text.
        guard: Gives who asks, by the method's name and the metadata, or raises what the call is
            refused with. None lets everyone in.

    Attributes:
        find: As given.
        limits: As given.
        connections: Those that stand, by number.
    """

    def __init__(
        self,
        find: Callable[[str], Method | None],
        limits: ConnectionLimits,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.find = find
        self.limits = limits
        self.connections: dict[int, Connection] = {}
        self._numbers = count(1)
        self._past = Counts()
        self._tls = tls
        self._guard = guard
        self._listeners: list[socket.socket] = []
        # Those that wait for descriptors, and until when.
        self._breaths: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Connections that stand or are to stand.
        self._num_open = 0
        self._settled = asyncio.Event()

    async def listen(self, host: str, port: int) -> int:
        """Starts to take connections; gives the port, which is a free one for 0.

        Raises:
            OSError: If the address is not to be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, *_, address in dict.fromkeys(found):
            # The first address has chosen the port for those that follow.
            place = (address[0], port, *address[2:])
            listener = _listener(family, place)
            self._listeners.append(listener)
            port = listener.getsockname()[1]
            self._take_from(listener)
        self._start(self._look_after())
        return port

    async def close(self, grace_s: float) -> None:
        """Takes no more connections, and ends the others; their calls have `grace_s` seconds."""
        for breath in self._breaths.values():
            breath.cancel()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self.connections.values()):
            connection.drain()
        # Calls may be on their way from callers who do not know yet; who does not say so is late.
        stops_at = asyncio.get_running_loop().time() + grace_s
        await self._settle(min(grace_s, _FAREWELL_S), lambda connection: connection.is_under_way)
        rest_s = stops_at - asyncio.get_running_loop().time()
        await self._settle(rest_s, lambda connection: connection.num_calls > 0)
        for connection in list(self.connections.values()):
            connection.stop()
        await self._settle(_BREATH_S, lambda _: True)
        for connection in list(self.connections.values()):
            connection.abort()

    # What a connection needs of its port.

    def admit(self, path: str, metadata: Metadata) -> str:
        """Who asks."""
        return "" if self._guard is None else self._guard(path, metadata)

    def connected(self, connection: Connection) -> int:
        """A connection stands; gives its number."""
        number = next(self._numbers)
        self.connections[number] = connection
        return number

    def disconnected(self, number: int) -> None:
        """The connection of this number is gone."""
        self._past.add(self.connections.pop(number).counts)
        self._num_open -= 1
        self._settled.set()

    def counts(self) -> Counts:
        """What passed through all connections so far."""
        total = Counts()
        for counts in (self._past, *(one.counts for one in self.connections.values())):
            total.add(counts)
        return total

    def settled(self) -> None:
        """A connection that was asked to end has no more calls."""
        self._settled.set()

    async def _settle(self, timeout_s: float, holds_up: Callable[[Connection], bool]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(map(holds_up, self.connections.values())):
                    self._settled.clear()
                    await self._settled.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _take_from(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            # It was gone again.
            return
        except OSError as error:
            logger.warning("a connection could not be taken: %s", error)
            loop.remove_reader(listener)
            self._breaths[listener] = loop.call_later(_BREATH_S, self._take_from, listener)
            return
        if self._num_open >= self.limits.max_connections:
            accepted.close()
            return
        self._num_open += 1
        accepted.setblocking(False)
        connection = Connection(self, loop)
        greeting = self._start(self._greet(accepted, connection))
        greeting.add_done_callback(partial(self._greeted, accepted, connection))

    async def _greet(self, accepted: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            await loop.connect_accepted_socket(lambda: connection, accepted)
        else:
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls(),
                ssl_handshake_timeout=self.limits.handshake_s,
            )

    def _greeted(
        self, accepted: socket.socket, connection: Connection, greeting: asyncio.Task[None]
    ) -> None:
        """A connection stands, or will not; then it is not counted any more."""
        error = OSError("the server stops") if greeting.cancelled() else greeting.exception()
        if error is None:
            return
        if isinstance(error, OSError):
            logger.info("a connection ended before it stood: %s", error)
        else:
            logger.error("a connection could not be taken", exc_info=error)
        accepted.close()
        if connection.was_made:
            # Not every event loop says so of a transport that nobody took.
            connection.connection_lost(None)
        else:
            self._num_open -= 1

    async def _look_after(self) -> None:
        limits, loop = self.limits, asyncio.get_running_loop()
        shortest_s = min(limits.handshake_s, limits.keepalive_s, limits.idle_s, limits.age_s)
        pause_s = min(max(min(shortest_s, limits.grace_s) / 4, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
        while True:
            await asyncio.sleep(pause_s)
            for connection in list(self.connections.values()):
                try:
                    connection.look(loop.time())
                except Exception:
                    # Of the others the times count all the same.
                    logger.exception("looking after %s failed", connection.peer)


def _listener(family: int, place: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # All addresses of the machine means those of the old kind too.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, place[0] != "::")
        listener.setblocking(False)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
