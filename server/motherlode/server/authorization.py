"""Lets a call through to its method, or refuses it: by the caller's key and the method's role."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import final

from motherlode.server.http2.headers import Metadata
from motherlode.server.keys import Key, KeyRing
from motherlode.server.metrics import Meters
from motherlode.server.roles import Role, role_for
from motherlode.server.status import PermissionDeniedError, UnauthenticatedError, reason_of

logger = logging.getLogger(__name__)

_HEADER = "authorization"
_SCHEME = "bearer "


@final
class Authorization:
    """Asks each call for a key that is good for its method, before anything of it is read.

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

    def __call__(self, path: str, metadata: Metadata) -> str:
        """The name of the caller's key; empty for methods that are open to everyone.

        Raises:
            UnauthenticatedError: If there is no key, or none that is good any more.
            PermissionDeniedError: If it is not good for this method.
        """
        role = role_for(path)
        if role is None:
            return ""
        try:
            key = self._identify(metadata)
            _check_role(key, role, path)
        except (UnauthenticatedError, PermissionDeniedError) as error:
            self._refused.labels(reason_of(error).lower()).inc()
            raise
        if role is Role.ADMIN:
            logger.info("%s is called with the key %s", path, key.name)
        return key.name

    def _identify(self, metadata: Metadata) -> Key:
        token = _token_of(metadata)
        if token is None:
            raise UnauthenticatedError("a key is needed, as a bearer token", reason="KEY_MISSING")
        key = self._ring().find(token)
        if key is None:
            raise UnauthenticatedError("the key is not known here", reason="KEY_UNKNOWN")
        if key.is_expired(self._now_s()):
            raise UnauthenticatedError("the key has expired", reason="KEY_EXPIRED")
        return key


def _token_of(metadata: Metadata) -> str | None:
    """What follows `Bearer` in the one header for it."""
    values = [value for name, value in metadata if name == _HEADER]
    # Of two, a proxy may have looked at the other one.
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    value = values[0]
    return value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else None


def _check_role(key: Key, role: Role, path: str) -> None:
    if not key.allows(role):
        raise PermissionDeniedError(f"{path} needs a key of the role {role.value}")
