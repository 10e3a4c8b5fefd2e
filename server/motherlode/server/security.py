"""What stands between a server and its callers: TLS, keys, and limits of connections."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, final

from motherlode.core.errors import ConfigError
from motherlode.server.authorization import Authorization
from motherlode.server.certificates import Certificates
from motherlode.server.config import ServerConfig, split_address
from motherlode.server.http2.limits import ConnectionLimits
from motherlode.server.keys import KeyRing, read_keys
from motherlode.server.metrics import Meters
from motherlode.server.watched_files import WatchedFiles

logger = logging.getLogger(__name__)

# For the answer to a ping.
_KEEPALIVE_TIMEOUT_S = 20.0


@final
class Security:
    """What the gRPC ports ask of their callers, by the settings.

    Attributes:
        tls: Gives what the next handshake is made with; None for plain text.
        guard: Gives who asks; None lets everyone in.

    Raises:
        ConfigError: If files of certificates or keys cannot be used, or the admin port would be
            open to other machines.
    """

    def __init__(self, config: ServerConfig, meters: Meters) -> None:
        self._config = config
        self._wanted_look = asyncio.Event()
        uses_tls = config.tls_certificate or config.tls_key or config.tls_client_ca
        self._certificates = Certificates(config) if uses_tls else None
        self._keys = _watch_keys(config)
        self._refuse_open_admin()
        self._warn_of_keys_in_clear_text()
        self._watch = self._watched(meters)
        self.tls = None if self._certificates is None else self._certificates.context
        self.guard: Authorization | None = None
        if self._keys is not None:
            keys = self._keys
            self.guard = Authorization(lambda: keys.content, meters)

    @property
    def limits(self) -> ConnectionLimits:
        """Sizes and times of connections."""
        config = self._config
        return ConnectionLimits(
            max_message_bytes=config.max_message_bytes,
            max_metadata_bytes=config.max_metadata_bytes,
            max_connections=config.max_connections,
            max_calls=config.max_connection_calls,
            handshake_s=config.handshake_timeout_s,
            keepalive_s=config.keepalive_interval_s,
            keepalive_timeout_s=_KEEPALIVE_TIMEOUT_S,
            idle_s=config.max_connection_idle_s,
            age_s=config.max_connection_age_s,
            grace_s=config.connection_age_grace_s,
        )

    def trigger(self) -> None:
        """Asks for a look at the files now instead of after the interval."""
        self._wanted_look.set()

    async def run(self) -> None:
        """Looks at the files again and again, until cancelled."""
        while self._watch:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted_look.wait(), self._config.reload_interval_s)
            self._wanted_look.clear()
            try:
                await self.look()
            except Exception:
                # The next look may go better; to stop looking would let a certificate run out.
                logger.exception("looking at certificates and keys failed")

    async def look(self) -> None:
        """Looks at the files once."""
        for files in self._watch:
            await asyncio.to_thread(files.look)

    def _watched(self, meters: Meters) -> list[WatchedFiles[Any]]:
        watched: list[WatchedFiles[Any]] = []
        if self._certificates is not None:
            certificate = self._certificates.files
            meters.watch_credentials("certificate", lambda: certificate.is_stale)
            meters.watch_certificate_expiry(lambda: certificate.content.expires_s)
            watched.append(certificate)
        if self._keys is not None:
            keys = self._keys
            meters.watch_credentials("keys", lambda: keys.is_stale)
            watched.append(keys)
        return watched

    def _refuse_open_admin(self) -> None:
        config = self._config
        is_guarded = self._keys is not None or config.tls_client_ca is not None
        if is_guarded or config.allow_open_admin or _is_loopback(config.admin):
            return
        expected = (
            "an address of this machine alone, such as 127.0.0.1:8003; other machines may reach it "
            "with keys_file or tls_client_ca, or with allow_open_admin, which lets in everyone"
        )
        raise ConfigError("admin", expected=expected, actual=config.admin)

    def _warn_of_keys_in_clear_text(self) -> None:
        if self._keys is None or self._certificates is not None:
            return
        for name in ("listen", "admin"):
            address = getattr(self._config, name)
            if not _is_loopback(address):
                logger.warning(
                    "%s: without tls_certificate, keys travel in clear text to %s", name, address
                )


def _watch_keys(config: ServerConfig) -> WatchedFiles[KeyRing] | None:
    path = config.keys_file
    return None if path is None else WatchedFiles("keys file", [path], lambda: read_keys(path))


def _is_loopback(address: str) -> bool:
    host = split_address(address)[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
