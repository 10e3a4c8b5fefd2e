"""A load generator: open and closed loops of calls against a server, over asyncio."""

from __future__ import annotations

from motherlode.clients.load.arrivals import poisson_arrivals
from motherlode.clients.load.histogram import LatencyHistogram
from motherlode.clients.load.motherlode import MotherlodeProtocol
from motherlode.clients.load.protocol import OK, Answer, LoadProtocol
from motherlode.clients.load.report import LoadReport, StatusReport
from motherlode.clients.load.runner import ClosedLoop, OpenLoop, precise_event_loop, run_load
from motherlode.clients.target import is_loopback

__all__ = [
    "OK",
    "Answer",
    "ClosedLoop",
    "LatencyHistogram",
    "LoadProtocol",
    "LoadReport",
    "MotherlodeProtocol",
    "OpenLoop",
    "StatusReport",
    "is_loopback",
    "poisson_arrivals",
    "precise_event_loop",
    "run_load",
]
