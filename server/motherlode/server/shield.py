"""Keeps what nobody foresaw from callers: they learn that it happened, and the log learns what."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, final

import grpc
from google.protobuf.message import DecodeError

from motherlode.core.errors import InvalidInputError
from motherlode.server.http2.method import CallEndedError, Method
from motherlode.server.status import abort, code_of

logger = logging.getLogger(__name__)

_Deserialize = Callable[[bytes], Any] | None
_NoteUnread = Callable[[Exception], None]
_End = Callable[[Any, Exception], Awaitable[NoReturn]]
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@final
class MethodTable:
    """Takes services as a gRPC server does, from generated code, and shields their methods.

    A method reads its own bytes there, so that bytes which are no message have a status of ours.

    Args:
        note_unread: Gets a method's name and the reason where bytes are no request for it.
    """

    def __init__(self, note_unread: Callable[[str, Exception], None]) -> None:
        self._note_unread = note_unread
        self._methods: dict[str, Method] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a service, as generated code does.

        Raises:
            TypeError: If one is neither a coroutine nor an asynchronous generator.
        """
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._methods[path] = _shield(handler, path, partial(self._note_unread, name))

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code adds each method in both ways."""

    def find(self, path: str) -> Method | None:
        """The method of this full name."""
        return self._methods.get(path)


def _shield(handler: Any, path: str, note_unread: _NoteUnread) -> Method:
    behavior = next(filter(None, (getattr(handler, kind) for kind in _KINDS)))
    deserialize = handler.request_deserializer
    is_generator = inspect.isasyncgenfunction(behavior)
    if not is_generator and not inspect.iscoroutinefunction(behavior):
        raise TypeError(f"{path} would keep the event loop from all others")
    if handler.request_streaming:
        behavior, deserialize = _decoding(behavior, deserialize), None
    shield = _shield_generator if is_generator else _shield_coroutine
    end = partial(_end, path, note_unread)
    return Method(
        shield(behavior, deserialize, end),
        handler.response_serializer,
        takes_stream=handler.request_streaming,
        is_generator=is_generator,
        note_unread=note_unread,
    )


def _shield_coroutine(behavior: Any, deserialize: _Deserialize, end: _End) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            if deserialize is not None:
                request = deserialize(request)
            return await behavior(request, context)
        except CallEndedError:
            raise
        except Exception as error:
            await end(context, error)

    return call


def _shield_generator(behavior: Any, deserialize: _Deserialize, end: _End) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            if deserialize is not None:
                request = deserialize(request)
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except CallEndedError:
            raise
        except Exception as error:
            await end(context, error)

    return call


def _decoding(behavior: Any, deserialize: _Deserialize) -> Any:
    """The behavior, which gets the messages of a stream as bytes."""
    if deserialize is None:
        return behavior

    async def decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for request in requests:
            yield deserialize(request)

    return lambda requests, context: behavior(decoded(requests), context)


async def _end(path: str, note_unread: _NoteUnread, context: Any, error: Exception) -> NoReturn:
    if isinstance(error, DecodeError):
        error = InvalidInputError("request", expected="a well-formed message", actual=error)
        note_unread(error)
    if code_of(error) is grpc.StatusCode.INTERNAL:
        logger.error("%s failed", path, exc_info=error)
    await abort(context, error)
