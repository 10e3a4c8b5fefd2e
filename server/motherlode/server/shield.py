"""Keeps what nobody foresaw from callers: they learn that it happened, and the log learns what.

Left to itself, gRPC tells callers the text of any exception, with whatever paths and values are in
it, and says UNKNOWN of bytes that are no message.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, NoReturn, final

import grpc
from google.protobuf.message import DecodeError
from typing_extensions import override

from motherlode.core.errors import InvalidInputError
from motherlode.server.status import abort, code_of

logger = logging.getLogger(__name__)

_Deserialize = Callable[[bytes], Any] | None


@final
class ShieldedServer(grpc.GenericRpcHandler):
    """Takes services in the place of an asyncio gRPC server, and shields their methods.

    All methods are found in one table. Were they registered with gRPC one by one, it would wait for
    the next call of each of them with a future, and look at every one of these for every call.

    Args:
        server: Gets them.
    """

    def __init__(self, server: Any) -> None:
        self._methods: dict[str, Any] = {}
        server.add_generic_rpc_handlers((self,))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a service, as generated code does."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._methods[method] = _shield(handler, method)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code adds each method in both ways."""

    @override
    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)


def _shield(handler: Any, method: str) -> Any:
    kind = next(name for name in _KINDS if getattr(handler, name) is not None)
    behavior = getattr(handler, kind)
    deserialize = handler.request_deserializer
    if handler.request_streaming:
        behavior, deserialize = _decoding(behavior, deserialize), None
    if inspect.isasyncgenfunction(getattr(handler, kind)):
        shielded = _shield_generator(behavior, deserialize, method)
    elif asyncio.iscoroutinefunction(getattr(handler, kind)):
        shielded = _shield_coroutine(behavior, deserialize, method)
    else:
        # gRPC runs it in a thread, where nothing of ours is.
        return handler
    return handler._replace(request_deserializer=None, **{kind: shielded})


_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _shield_coroutine(behavior: Any, deserialize: _Deserialize, method: str) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            if deserialize is not None:
                request = deserialize(request)
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _end(context, error, method)

    return call


def _shield_generator(behavior: Any, deserialize: _Deserialize, method: str) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            if deserialize is not None:
                request = deserialize(request)
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _end(context, error, method)

    return call


def _decoding(behavior: Any, deserialize: _Deserialize) -> Any:
    """The behavior, which gets the messages of a stream as bytes."""
    if deserialize is None:
        return behavior

    async def decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for request in requests:
            yield deserialize(request)

    return lambda requests, context: behavior(decoded(requests), context)


async def _end(context: Any, error: Exception, method: str) -> NoReturn:
    if isinstance(error, DecodeError):
        error = InvalidInputError("request", expected="a well-formed message", actual=error)
    if code_of(error) is grpc.StatusCode.INTERNAL:
        logger.error("%s failed", method, exc_info=error)
    await abort(context, error)
