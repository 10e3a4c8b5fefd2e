"""The server's certificate: read, tried out, and taken again when it is renewed."""

from __future__ import annotations

import logging
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import grpc

from motherlode.core.errors import ConfigError
from motherlode.server.config import ServerConfig
from motherlode.server.watched_files import WatchedFiles, read_file

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """What the server shows its callers, and whom it trusts.

    Attributes:
        chain: Its certificate and those between it and the root, in PEM.
        key: The certificate's private key, in PEM.
        client_ca: Certificates that callers' certificates must come from; None asks for none.
        expires_s: Unix time at which the certificate runs out.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires_s: float


@final
class Certificates:
    """The identity of the server, as its files have it.

    Args:
        config: Settings that name the files; `tls_certificate` is one of them.

    Raises:
        ConfigError: If a file is missing, or they do not fit each other.
    """

    def __init__(self, config: ServerConfig) -> None:
        certificate, key, client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
        if certificate is None or key is None:
            missing = "tls_certificate" if certificate is None else "tls_key"
            expected = "a file: tls_certificate and tls_key belong together"
            raise ConfigError(missing, expected=expected, actual=None)
        _warn_of_open_key(key)
        self._asks_for_client = client_ca is not None
        paths = [path for path in (certificate, key, client_ca) if path is not None]
        self.files = WatchedFiles(
            "certificate", paths, lambda: _read_identity(certificate, key, client_ca)
        )

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one port; each handshake gets the identity of its time."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self.files.content), self._fetcher(), self._asks_for_client
        )
        return credentials

    def _fetcher(self) -> Callable[[], Any]:
        """What gRPC asks before each handshake; None says that nothing is new."""
        given = self.files.content

        def fetch() -> Any:
            nonlocal given
            current = self.files.content
            if current is given:
                return None
            given = current
            return _configuration(current)

        return fetch


def _configuration(identity: Identity) -> Any:
    pairs = [(identity.key, identity.chain)]
    return grpc.ssl_server_certificate_configuration(pairs, identity.client_ca)


def _read_identity(certificate: Path, key: Path, client_ca: Path | None) -> Identity:
    chain, private = read_file("tls_certificate", certificate), read_file("tls_key", key)
    trusted = None if client_ca is None else read_file("tls_client_ca", client_ca)
    server = _server_context(certificate, key)
    if client_ca is not None:
        _load_roots(server, "tls_client_ca", client_ca)
    expires_s = _rehearse(server, certificate)
    return Identity(chain, private, trusted, expires_s)


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password that is wrong at once, where OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _wrong_pair(certificate, key, error) from error
    return context


def _wrong_pair(certificate: Path, key: Path, error: OSError) -> ConfigError:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return ConfigError(
            "tls_key", expected=f"the private key of {certificate}", actual=f"another one in {key}"
        )
    try:
        ssl.create_default_context(cafile=certificate)
    except (OSError, ValueError):
        return ConfigError("tls_certificate", expected="certificates in PEM", actual=certificate)
    expected = "a private key in PEM, without a password"
    return ConfigError("tls_key", expected=expected, actual=key)


def _load_roots(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigError(name, expected="certificates in PEM", actual=path) from error


def _rehearse(server_context: ssl.SSLContext, certificate: Path) -> float:
    """Shakes hands in memory, as a caller would who trusts this very certificate.

    Only so does the standard library say when a certificate runs out, and a certificate that no
    caller would take is found before callers find it.

    Returns:
        The Unix time at which the certificate runs out.

    Raises:
        ConfigError: If no caller would take it.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_roots(client_context, "tls_certificate", certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server) * 3:
            _step(side)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason
        expected = "a certificate that callers would take now"
        raise ConfigError(
            "tls_certificate", expected=expected, actual=f"{certificate}: {reason}"
        ) from error
    found: Any = client.getpeercert()
    return float(ssl.cert_time_to_seconds(found["notAfter"]))


def _step(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        # The other side's turn.
        return


def _warn_of_open_key(path: Path) -> None:
    try:
        is_open = bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return
    if is_open:
        logger.warning("tls_key: everyone on this machine may read %s; chmod o-rwx it", path)
