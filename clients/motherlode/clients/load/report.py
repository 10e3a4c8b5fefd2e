"""What came of a load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from motherlode.clients.load.histogram import LatencyHistogram
from motherlode.clients.load.protocol import OK, Answer

__all__ = ["LoadReport", "StatusReport"]

_QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}


@final
@dataclass(slots=True, eq=False)
class StatusReport:
    """The calls that ended with one status.

    Attributes:
        message: What the server said of the first of them.
        latencies: Of all of them.
    """

    message: str = ""
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)

    def document(self) -> dict[str, Any]:
        """As JSON values: seconds, null where there are none."""
        return {"calls": len(self.latencies), "message": self.message} | quantiles(self.latencies)


@final
@dataclass(slots=True, eq=False)
class LoadReport:
    """What came of one load, as far as it got.

    Attributes:
        statuses: Calls by how they ended; those still under way at an early stop are `UNFINISHED`,
            and those that were due while too many were under way `NOT_SENT`.
        lateness: How long after it was due each call of an open loop was sent. It is part of the
            latencies; where it is much of them, this machine is too slow for the rate.
        num_due: Calls that were due.
        sending_s: Seconds in which calls were due.
        elapsed_s: Seconds from the start to the last call that was answered, `sending_s` at least.
        queries_per_call: Queries of each call.
        is_interrupted: Whether it was stopped before its time.
    """

    statuses: dict[str, StatusReport] = field(default_factory=dict)
    lateness: LatencyHistogram = field(default_factory=LatencyHistogram)
    num_due: int = 0
    sending_s: float = 0.0
    elapsed_s: float = 0.0
    queries_per_call: int = 1
    is_interrupted: bool = False

    @property
    def num_calls(self) -> int:
        """All calls, however they ended."""
        return sum(len(report.latencies) for report in self.statuses.values())

    @property
    def num_ok(self) -> int:
        """Calls that were answered."""
        return len(self.answered)

    @property
    def answered(self) -> LatencyHistogram:
        """Latencies of the calls that were answered."""
        return self.statuses[OK].latencies if OK in self.statuses else LatencyHistogram()

    @property
    def offered_rate(self) -> float:
        """Calls per second that were due."""
        return self.num_due / self.sending_s if self.sending_s else 0.0

    @property
    def achieved_rate(self) -> float:
        """Calls per second that were answered."""
        return self.num_ok / self.elapsed_s if self.elapsed_s else 0.0

    def record(self, answer: Answer, latency_s: float) -> None:
        """Counts one call."""
        status = self.statuses.setdefault(answer.status, StatusReport(answer.message))
        status.latencies.record(latency_s)

    def document(self) -> dict[str, Any]:
        """As JSON values: seconds, calls per second."""
        return {
            "num_due": self.num_due,
            "num_calls": self.num_calls,
            "num_ok": self.num_ok,
            "offered_rate": self.offered_rate,
            "achieved_rate": self.achieved_rate,
            "achieved_queries_per_s": self.achieved_rate * self.queries_per_call,
            "sending_s": self.sending_s,
            "elapsed_s": self.elapsed_s,
            "is_interrupted": self.is_interrupted,
            "statuses": {name: self.statuses[name].document() for name in self.ordered()},
            "lateness": quantiles(self.lateness),
            "precision": LatencyHistogram.PRECISION,
        }

    def ordered(self) -> list[str]:
        """The statuses, `OK` first, then by number of calls."""
        counts = {name: len(status.latencies) for name, status in self.statuses.items()}
        return sorted(counts, key=lambda name: (name != OK, -counts[name], name))


def quantiles(latencies: LatencyHistogram) -> dict[str, float | None]:
    """The usual figures of a histogram, in seconds."""
    figures = {name: latencies.quantile(share) for name, share in _QUANTILES.items()}
    return {"mean_s": latencies.mean_s, **figures, "max_s": latencies.max_s}
