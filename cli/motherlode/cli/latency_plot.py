"""The plot of `motherlode bench`: which latency is exceeded by which share of the calls."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from motherlode.clients.load import LoadReport

__all__ = ["draw_latencies"]

_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def draw_latencies(path: Path, report: LoadReport, *, title: str) -> None:
    """Writes a PNG, SVG or PDF with a curve for each status: latency over percentile.

    The horizontal axis is stretched towards 100 %, as in the plots of HdrHistogram: each step is a
    tenth of the calls of the step before.

    Raises:
        OSError: If the file cannot be written.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    most = 1
    for status in report.ordered():
        latencies = report.statuses[status].latencies
        if not latencies.max_s:
            continue  # not sent at all: zero has no place on a logarithmic axis
        most = max(most, len(latencies))
        # The slowest call has nobody above it: it stands where half a call would.
        floor = 0.5 / max(1, len(latencies))
        points = [(max(1 - share, floor), 1e3 * end) for end, share in latencies.cumulative()]
        above, times_ms = zip(*points, strict=True)
        axes.step(above, times_ms, where="post", label=f"{status} ({len(latencies):,} calls)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1.0, 0.4 / most)
    shown = [share for share in _SHARES if 1 - share >= 0.5 / most]
    axes.set_xticks([1 - share for share in shown], [f"{share:.7g}" for share in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("share of calls that are at least as fast")
    axes.set_ylabel("latency in ms")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
