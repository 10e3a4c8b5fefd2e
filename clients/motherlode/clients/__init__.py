"""Clients of a Motherlode server: blocking and asyncio; needs neither torch nor faiss."""

from __future__ import annotations

from motherlode.clients.admin import (
    AdminClient,
    CanaryStatus,
    GateFigure,
    ModelStatus,
    VersionState,
    VersionStatus,
)
from motherlode.clients.asynchronous import AsyncClient
from motherlode.clients.blocking import Client
from motherlode.clients.channel import Tls
from motherlode.clients.errors import (
    AccessError,
    CallCancelledError,
    ClientError,
    DeadlineError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    RefusedError,
    ServerError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    VersionChangedError,
)
from motherlode.clients.info import HealthStatus, Limits, ModelInfo, ServerInfo
from motherlode.clients.queries import QueryBatch, query_batch
from motherlode.clients.question import QuestionOptions
from motherlode.clients.result import Hit, Notice, StageTimings, TopKResult

__all__ = [
    "AccessError",
    "AdminClient",
    "AsyncClient",
    "CallCancelledError",
    "CanaryStatus",
    "Client",
    "ClientError",
    "DeadlineError",
    "FieldViolation",
    "GateFigure",
    "HealthStatus",
    "Hit",
    "InvalidArgumentError",
    "Limits",
    "ModelInfo",
    "ModelStatus",
    "NotFoundError",
    "Notice",
    "OverloadedError",
    "QueryBatch",
    "QuestionOptions",
    "RefusedError",
    "ServerError",
    "ServerInfo",
    "StageTimings",
    "Tls",
    "TooLargeError",
    "TopKResult",
    "UnavailableError",
    "UnsupportedError",
    "VersionChangedError",
    "VersionState",
    "VersionStatus",
    "query_batch",
]
