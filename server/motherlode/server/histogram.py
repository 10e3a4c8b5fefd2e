"""A Prometheus histogram for the request path.

`prometheus_client.Histogram` walks its buckets under a lock, which costs some microseconds several
times per request. Here an observation is a bisection. The price: all observations of one metric
must come from one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import final

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override


@final
class Series:
    """The observations of one set of label values."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Observations up to each bound, the last bound being infinity; and the sum of all."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum


@final
class Histogram(Collector):
    """Observations by label values, exported by a registry.

    Args:
        name: Full name of the metric.
        text: What it measures.
        labels: Names of its labels.
        bounds: Upper bounds of the buckets, ascending, without infinity.
        registry: Where it is exported.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these label values, made if new."""
        if len(values) != len(self._labels):
            raise ValueError(f"expected values of {self._labels}, got {values}")
        return self._series.setdefault(values, Series(self._bounds))

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Removes all series that have these label values."""
        wanted = {self._labels.index(name): value for name, value in labels.items()}
        for values in list(self._series):
            if all(values[place] == value for place, value in wanted.items()):
                del self._series[values]

    @override
    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        # A copy: a scrape runs in a thread of its own while series come and go.
        for values, series in list(self._series.items()):
            buckets, total = series.cumulative()
            family.add_metric(values, buckets, total)
        yield family
