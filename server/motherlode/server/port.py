"""A port that speaks gRPC: its limits, its address, what it can be asked about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from motherlode.core.errors import ConfigError
from motherlode.server.config import split_address
from motherlode.server.health import HealthBoard
from motherlode.server.http2.server import GrpcServer
from motherlode.server.security import Security
from motherlode.server.shield import MethodTable


@final
class Port:
    """One gRPC server at one address.

    Args:
        field: Setting that gives the address; errors name it.
        address: Where to listen; port 0 takes a free one.
        security: Who may call, and how much they may send.
        note_unread: Gets a method's name and the reason where bytes are no request for it.

    Attributes:
        field: As given.
        server: Knows its connections.
    """

    def __init__(
        self,
        field: str,
        address: str,
        security: Security,
        note_unread: Callable[[str, Exception], None],
    ) -> None:
        self.field = field
        self._address = address
        self._table = MethodTable(note_unread)
        self.server = GrpcServer(
            self._table.find, security.limits, tls=security.tls, guard=security.guard
        )

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
        register(self._table)
        board.register(self._table)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), self._table
        )
        host, port = split_address(self._address)
        try:
            port = await self.server.listen(host.strip("[]"), port)
        except OSError as error:
            raise cannot_bind(self.field, self._address) from error
        return f"{host}:{port}"

    async def close(self, grace_s: float) -> None:
        """Stops; calls under way have `grace_s` seconds left. To close twice does no harm."""
        await self.server.close(grace_s)


def cannot_bind(field: str, address: str) -> ConfigError:
    """The error of an address that is taken, or of another machine."""
    return ConfigError(field, expected="an address that is free on this machine", actual=address)
