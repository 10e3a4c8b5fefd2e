"""Operators of a server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from motherlode.clients import AdminClient, ModelStatus, VersionStatus
from tests.support.servers import RunningServer

Result = TypeVar("Result")


async def operate(server: RunningServer, ask: Callable[[AdminClient], Result]) -> Result:
    """What an operator's call gives, made over the server's admin port."""

    def call() -> Result:
        with AdminClient(server.readiness.admin, timeout_s=60.0) as client:
            return ask(client)

    return await asyncio.to_thread(call)


def version_of(model: ModelStatus, version: int) -> VersionStatus:
    """What is said of one version."""
    [found] = [one for one in model.versions if one.version == version]
    return found
