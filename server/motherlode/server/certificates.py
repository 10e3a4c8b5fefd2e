"""The server's certificate: read, tried out, and taken again when it is renewed."""

from __future__ import annotations

import logging
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from motherlode.core.errors import ConfigError
from motherlode.server.config import ServerConfig
from motherlode.server.watched_files import WatchedFiles, read_file

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """What the server shows its callers, and whom it trusts.

    Attributes:
        context: What handshakes are made with: its certificate, and the roots of callers'.
        expires_s: Unix time at which the certificate runs out.
    """

    context: ssl.SSLContext
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
        paths = [path for path in (certificate, key, client_ca) if path is not None]
        self.files = WatchedFiles(
            "certificate", paths, lambda: _read_identity(certificate, key, client_ca)
        )

    def context(self) -> ssl.SSLContext:
        """What the next handshake is made with: connections that stand keep what they had."""
        return self.files.content.context


def _read_identity(certificate: Path, key: Path, client_ca: Path | None) -> Identity:
    chain = read_file("tls_certificate", certificate)
    # It is OpenSSL that reads it for use, and would not say which file is missing.
    read_file("tls_key", key)
    context = _server_context(certificate, key, chain)
    # Before roots are loaded, as the rehearsing caller has no certificate to show.
    expires_s = _rehearse(context, certificate, chain)
    # gRPC's clients end a handshake that does not choose a protocol.
    context.set_alpn_protocols(["h2"])
    if client_ca is not None:
        roots = read_file("tls_client_ca", client_ca)
        _load_roots(context, "tls_client_ca", client_ca, roots)
        context.verify_mode = ssl.CERT_REQUIRED
    return Identity(context, expires_s)


def _server_context(certificate: Path, key: Path, chain: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A session that is taken up again would let in whom an authority no longer vouches for.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        # A password that is wrong at once, where OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _wrong_pair(certificate, key, chain, error) from error
    return context


def _wrong_pair(certificate: Path, key: Path, chain: bytes, error: OSError) -> ConfigError:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return ConfigError(
            "tls_key", expected=f"the private key of {certificate}", actual=f"another one in {key}"
        )
    try:
        _load_roots(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "tls_certificate", certificate, chain)
    except ConfigError as wrong:
        return wrong
    expected = "a private key in PEM, without a password"
    return ConfigError("tls_key", expected=expected, actual=key)


def _load_roots(context: ssl.SSLContext, name: str, path: Path, content: bytes) -> None:
    try:
        # Certificates are ASCII; the names of authorities that bundles put beside them are not.
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (OSError, ValueError) as error:
        raise ConfigError(name, expected="certificates in PEM", actual=path) from error


def _rehearse(server_context: ssl.SSLContext, certificate: Path, chain: bytes) -> float:
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
    _load_roots(client_context, "tls_certificate", certificate, chain)
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
