"""A port that speaks gRPC: its limits, its address, what it can be asked about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from motherlode.core.errors import ConfigError
from motherlode.server.config import split_address
from motherlode.server.health import HealthBoard
from motherlode.server.security import Security
from motherlode.server.shield import ShieldedServer


@final
class Port:
    """One gRPC server at one address.

    Args:
        field: Setting that gives the address; errors name it.
        address: Where to listen; port 0 takes a free one.
        security: Who may call, and how much they may send.
    """

    def __init__(self, field: str, address: str, security: Security) -> None:
        self._field = field
        self._address = address
        self._security = security
        self._options = [
            *security.options,
            # A second server on a taken port must fail, not take half of the calls.
            ("grpc.so_reuseport", 0),
            # Counts calls and bytes by socket; the admin port shows them.
            ("grpc.enable_channelz", 1),
        ]
        self._server: Any = None

    async def open(
        self, register: Callable[[Any], None], services: tuple[str, ...], board: HealthBoard
    ) -> str:
        """Starts to answer; gives the bound address.

        Args:
            register: Adds the services to what it gets, as generated code does to a gRPC server.
            services: Their names, for reflection.
            board: Answers `grpc.health.v1` here.

        Raises:
            ConfigError: If the address cannot be bound.
        """
        self._server = server = grpc.aio.server(
            interceptors=self._security.interceptors, options=self._options
        )
        shielded = ShieldedServer(server)
        register(shielded)
        board.register(shielded)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), shielded
        )
        try:
            port = self._bind(server)
        except RuntimeError as error:
            raise cannot_bind(self._field, self._address) from error
        await server.start()
        return f"{split_address(self._address)[0]}:{port}"

    def _bind(self, server: Any) -> int:
        credentials = self._security.credentials()
        port: int
        if credentials is None:
            port = server.add_insecure_port(self._address)
        else:
            port = server.add_secure_port(self._address, credentials)
        return port

    async def close(self, grace_s: float) -> None:
        """Stops; calls under way have `grace_s` seconds left. To close twice does no harm."""
        if self._server is not None:
            await self._server.stop(grace_s)


def cannot_bind(field: str, address: str) -> ConfigError:
    """The error of an address that is taken, or of another machine."""
    return ConfigError(field, expected="an address that is free on this machine", actual=address)
