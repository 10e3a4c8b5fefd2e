"""Lets a call through to its method, or refuses it: by the caller's key and the method's role."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, final

import grpc
from typing_extensions import override

from motherlode.core.errors import MotherlodeError
from motherlode.server.keys import Key, KeyRing
from motherlode.server.metrics import Meters
from motherlode.server.roles import Role, role_for
from motherlode.server.status import (
    PermissionDeniedError,
    UnauthenticatedError,
    abort,
    reason_of,
)

logger = logging.getLogger(__name__)

# Each call runs in a context of its own.
_name: ContextVar[str] = ContextVar("name", default="")
_HEADER = "authorization"
_SCHEME = "bearer "


def caller_of(context: Any) -> str:
    """Who a call is from, for sharing the server: the name of its key, or its connection."""
    peer: str = context.peer()
    return _name.get() or peer


@final
class Authorization(grpc.aio.ServerInterceptor):
    """Asks each call for a key that is good for its method.

    A call of an admin is noted in the log with the name of its key.

    Args:
        ring: Gives the keys that are known now.
        meters: Counts what is refused.
        now_s: The clock, in Unix time.
    """

    def __init__(
        self, ring: Callable[[], KeyRing], meters: Meters, now_s: Callable[[], float] = time.time
    ) -> None:
        self._ring = ring
        self._refused = meters.access_refused
        self._now_s = now_s

    @override
    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        method = handler_call_details.method
        role = role_for(method)
        if role is not None:
            try:
                key = self._identify(handler_call_details.invocation_metadata)
                _check_role(key, role, method)
            except (UnauthenticatedError, PermissionDeniedError) as error:
                self._refused.labels(reason_of(error).lower()).inc()
                return _refusing(error)
            _name.set(key.name)
            if role is Role.ADMIN:
                logger.info("%s is called with the key %s", method, key.name)
        return await continuation(handler_call_details)

    def _identify(self, metadata: Sequence[tuple[str, str | bytes]]) -> Key:
        """The caller's key.

        Raises:
            UnauthenticatedError: If there is none, or none that is good any more.
        """
        token = _token_of(metadata)
        if token is None:
            raise UnauthenticatedError("a key is needed, as a bearer token", reason="KEY_MISSING")
        key = self._ring().find(token)
        if key is None:
            raise UnauthenticatedError("the key is not known here", reason="KEY_UNKNOWN")
        if key.is_expired(self._now_s()):
            raise UnauthenticatedError("the key has expired", reason="KEY_EXPIRED")
        return key


def _token_of(metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
    """What follows `Bearer` in the one header for it."""
    values = [value for name, value in metadata if name == _HEADER]
    # Of two, a proxy may have looked at the other one.
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    value = values[0]
    return value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else None


def _check_role(key: Key, role: Role, method: str) -> None:
    if not key.allows(role):
        raise PermissionDeniedError(f"{method} needs a key of the role {role.value}")


def _refusing(error: MotherlodeError) -> Any:
    """A handler that ends a call of any kind before a message of it is read."""

    async def refuse(_: Any, context: Any) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)
