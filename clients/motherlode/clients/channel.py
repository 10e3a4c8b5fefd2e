"""How a channel to a server is set up, for both clients."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from motherlode.clients.errors import InvalidArgumentError
from motherlode.clients.target import is_loopback
from motherlode.v1 import retrieval_pb2_grpc

__all__ = [
    "Metadata",
    "Tls",
    "channel_options",
    "credentials_of",
    "health_service",
    "metadata_with",
    "methods_of",
]

Metadata = Sequence[tuple[str, str | bytes]]
File = str | os.PathLike[str]

SERVICE = "motherlode.v1.RetrievalService"

# Only UNAVAILABLE is tried again here: the server has not touched the request. A full queue is
# tried again by the steps, since the server says when; nothing else is.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": SERVICE, "method": "TopK"},
                {"service": SERVICE, "method": "GetServerInfo"},
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


@final
@dataclass(frozen=True, slots=True)
class Tls:
    """How a client and a server prove who they are. The files are read when a client is made.

    Attributes:
        ca: PEM file of the roots that the server's certificate may come from; without it those that
            gRPC brings along.
        certificate: PEM file of the client's own certificate, for a server that asks for one.
        key: PEM file of that certificate's private key.
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None


def credentials_of(tls: Tls | None) -> grpc.ChannelCredentials | None:
    """What gRPC is to use; None for plain text.

    Raises:
        InvalidArgumentError: If a file is not what it should be, or one of a pair is not named.
        OSError: If a file cannot be read.
    """
    if tls is None:
        return None
    if (tls.certificate is None) != (tls.key is None):
        missing = "tls.certificate" if tls.certificate is None else "tls.key"
        expected = "a file: certificate and key belong together"
        raise InvalidArgumentError.of_field(missing, expected=expected, actual=None)
    _check_tls(tls)
    files = (tls.ca, tls.key, tls.certificate)
    credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(
        *(None if file is None else Path(file).read_bytes() for file in files)
    )
    return credentials


def _check_tls(tls: Tls) -> None:
    # gRPC would only say that no connection comes about.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    field, expected, actual = "tls.ca", "certificates in PEM", tls.ca
    try:
        if tls.ca is not None:
            context.load_verify_locations(cafile=tls.ca)
        if tls.certificate is not None:
            field, expected = "tls.key", f"the private key of {tls.certificate}, without a password"
            actual = tls.key
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        raise InvalidArgumentError.of_field(field, expected=expected, actual=actual) from error


def metadata_with(
    key: str | None, metadata: Metadata, *, target: str, is_encrypted: bool
) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata of each call, the key among it.

    Raises:
        InvalidArgumentError: If the key would leave this machine in clear text.
    """
    if key is None:
        return tuple(metadata)
    if not key.isascii() or not key.isprintable() or not key.strip():
        raise InvalidArgumentError.of_field("key", expected="printable ASCII", actual="other text")
    if not (is_encrypted or is_loopback(target)):
        expected = "tls, as the key would travel in clear text"
        raise InvalidArgumentError.of_field("tls", expected=expected, actual=None)
    return (*metadata, ("authorization", f"Bearer {key.strip()}"))


def channel_options(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The clients' channel options, followed by the caller's, which win."""
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # The server limits what it sends, and the parts of a batch are cut to fit.
        ("grpc.max_receive_message_length", -1),
        *options,
    ]


def methods_of(channel: Any) -> dict[str, Any]:
    """The methods that the steps name, callable over a channel of grpc or grpc.aio."""
    stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=Int32Value.FromString,
    )
    return {
        "TopK": stub.TopK,
        "TopKStream": stub.TopKStream,
        "GetServerInfo": stub.GetServerInfo,
        "Check": check,
    }


def health_service(model: str | None) -> str:
    """The name by which health is asked, of one model or of the whole service."""
    return SERVICE if model is None else f"model:{model}"
