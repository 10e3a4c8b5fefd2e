"""What a server says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["HealthStatus", "Limits", "ModelInfo", "ServerInfo", "server_info_from"]

HealthStatus = Literal["serving", "not_serving", "unknown"]


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes in one call; 0 stands for no limit.

    Attributes:
        max_queries_per_call: Queries of one batch.
        max_k: Labels per query.
        max_text_bytes: Bytes of one text in UTF-8.
        max_message_bytes: Bytes of a request, and of an answer.
        max_queued_queries: Queries that may wait in the server, of all callers together.
        max_queued_bytes: Memory that they may hold.
        max_batch_queries: Queries that run together; a call with more runs in parts.
        max_queue_delay_s: Longest wait that a call may expect when it comes, in seconds.
    """

    max_queries_per_call: int
    max_k: int
    max_text_bytes: int
    max_message_bytes: int
    max_queued_queries: int
    max_queued_bytes: int = 0
    max_batch_queries: int = 0
    max_queue_delay_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of a server.

    Attributes:
        name: Its name in the repository.
        version: The serving version; 0 where none could be loaded.
        bundle_digest: Digest of that version's bundle.
        num_labels: Labels it chooses from.
        num_features: Features its encoder takes.
        embedding_width: Width of its embeddings.
        query_kinds: Kinds of query it takes: text, sparse, features, embeddings.
        score_meaning: What a score says; higher is always better.
        aliases: Version of each alias.
        load_error: Why the newest version is not the serving one; empty where it is.
        loaded_versions: Versions that can be asked for, newest first.
    """

    name: str
    version: int
    bundle_digest: str
    num_labels: int
    num_features: int
    embedding_width: int
    query_kinds: tuple[str, ...]
    score_meaning: str
    aliases: dict[str, int]
    load_error: str
    loaded_versions: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server, its limits and its models."""

    server_version: str
    limits: Limits
    models: tuple[ModelInfo, ...]


def server_info_from(message: pb.GetServerInfoResponse) -> ServerInfo:
    """The server's own description, decoded."""
    limits = message.limits
    return ServerInfo(
        server_version=message.server_version,
        limits=Limits(
            max_queries_per_call=limits.max_queries_per_call,
            max_k=limits.max_k,
            max_text_bytes=limits.max_text_bytes,
            max_message_bytes=limits.max_message_bytes,
            max_queued_queries=limits.max_queued_queries,
            max_queued_bytes=limits.max_queued_bytes,
            max_batch_queries=limits.max_batch_queries,
            max_queue_delay_s=limits.max_queue_delay_s,
        ),
        models=tuple(map(_model_info, message.models)),
    )


def _model_info(message: pb.ModelInfo) -> ModelInfo:
    return ModelInfo(
        name=message.name,
        version=message.version,
        bundle_digest=message.bundle_digest,
        num_labels=message.num_labels,
        num_features=message.num_features,
        embedding_width=message.embedding_width,
        query_kinds=tuple(message.query_kinds),
        score_meaning=message.score_meaning,
        aliases=dict(message.aliases),
        load_error=message.load_error,
        loaded_versions=tuple(message.loaded_versions),
    )
