"""How a channel to a server is set up, for both clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from motherlode.v1 import retrieval_pb2_grpc

__all__ = ["Metadata", "channel_options", "health_service", "methods_of"]

Metadata = Sequence[tuple[str, str | bytes]]

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
