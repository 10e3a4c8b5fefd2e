"""Health for load balancers and orchestrators: of the process, the service, and each model."""

from __future__ import annotations

from typing import Any, final

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICES = ("motherlode.v1.RetrievalService", "inference.GRPCInferenceService")

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@final
class HealthBoard:
    """What `grpc.health.v1` says.

    `""` is the process: it serves as soon as it answers. Each of SERVICES serves when the first
    look at the repository is over and at least one model is loaded. `model:NAME` serves when a
    version of the model is loaded, warm and checked. All say NOT_SERVING once the server is about
    to stop.
    """

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()

    async def start(self) -> None:
        """The process answers from now on; nothing is ready yet."""
        await self._servicer.set("", _SERVING)
        await self.set_services(False)

    def register(self, server: Any) -> None:
        """Adds the service to a gRPC server; several may have it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_services(self, is_ready: bool) -> None:
        """Says whether the services can answer."""
        for service in SERVICES:
            await self._servicer.set(service, _SERVING if is_ready else _NOT_SERVING)

    async def set_model(self, model: str, is_ready: bool) -> None:
        """Says whether a model can answer; one that vanished is known and not serving."""
        await self._servicer.set(f"model:{model}", _SERVING if is_ready else _NOT_SERVING)

    async def stop(self) -> None:
        """Says NOT_SERVING for everything from now on."""
        await self._servicer.enter_graceful_shutdown()
