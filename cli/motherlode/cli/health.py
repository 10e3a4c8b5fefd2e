"""`motherlode health`: whether a server can answer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.access import Access
from motherlode.cli.output import print_line

__all__ = ["health"]

_NO_ACCESS = Access()
_DAY_S = 86_400


def health(
    *,
    target: str = "localhost:8001",
    model: str | None = None,
    timeout_s: Annotated[float, Parameter(validator=Number(gt=0, lte=_DAY_S))] = 5.0,
    access: Access = _NO_ACCESS,
) -> int:
    """Say whether a server, or one model of it, can answer; the exit status is 0 if it can.

    No key is needed, as a container's health check has none.

    Args:
        target: HOST:PORT of the server.
        model: Ask for this model alone.
        timeout_s: Seconds to wait for an answer, up to a day.
        access: How to prove who calls.
    """
    from motherlode.clients import Client  # noqa: PLC0415

    with Client(target, timeout_s=timeout_s, tls=access.encryption(), key=access.key()) as client:
        status = client.health(model)
    print_line(status)
    return int(status != "serving")
