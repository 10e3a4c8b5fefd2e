"""A histogram of durations with a fixed relative precision.

The buckets are those of Gil Tene's HdrHistogram: a bucket is 2**e nanoseconds wide, where e grows
with the duration, so that each is narrower than a thousandth of what it holds. Memory is a few
hundred counters however many durations are recorded, and histograms can be added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import final

__all__ = ["LatencyHistogram"]

# Leading bits of a duration that a bucket keeps: one more than the bits of the precision.
_KEPT_BITS = 11


@final
class LatencyHistogram:
    """Durations in seconds; not for several threads at once."""

    PRECISION = 2.0 ** (1 - _KEPT_BITS)
    """How far above the recorded duration a quantile may lie, relative to it (or 1 ns)."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._num = 0
        self._sum_ns = 0
        self._max_ns = 0

    def __len__(self) -> int:
        return self._num

    @property
    def mean_s(self) -> float | None:
        """The mean, or None of nothing; exact to the nanosecond."""
        return self._sum_ns / self._num / 1e9 if self._num else None

    @property
    def max_s(self) -> float | None:
        """The longest, or None of nothing; exact to the nanosecond."""
        return self._max_ns / 1e9 if self._num else None

    def record(self, duration_s: float) -> None:
        """Counts one duration.

        Raises:
            ValueError: If it is negative, infinite or no number.
        """
        if not (math.isfinite(duration_s) and duration_s >= 0):
            raise ValueError(f"duration_s: expected a finite number from 0 on, got {duration_s}")
        duration_ns = round(duration_s * 1e9)
        bucket = _bucket_of(duration_ns)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._num += 1
        self._sum_ns += duration_ns
        self._max_ns = max(self._max_ns, duration_ns)

    def add(self, other: LatencyHistogram) -> None:
        """Counts all that another histogram has counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._num += other._num
        self._sum_ns += other._sum_ns
        self._max_ns = max(self._max_ns, other._max_ns)

    def quantile(self, share: float) -> float | None:
        """The shortest duration in seconds that at least this share of all do not exceed.

        It is the end of the duration's bucket, so never too short; None of nothing.

        Raises:
            ValueError: If `share` is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected 0 to 1, got {share}")
        rank = max(1, math.ceil(share * self._num))
        return next((end for end, below in self._ends() if below >= rank), None)

    def cumulative(self) -> list[tuple[float, float]]:
        """Ends of the buckets in seconds, ascending, and the share of durations up to each."""
        return [(end, below / self._num) for end, below in self._ends()]

    def _ends(self) -> Iterator[tuple[float, int]]:
        buckets = sorted(self._counts)
        for bucket, below in zip(
            buckets, accumulate(self._counts[bucket] for bucket in buckets), strict=True
        ):
            yield min(_last_of(bucket), self._max_ns) / 1e9, below


def _bucket_of(duration_ns: int) -> int:
    shift = max(0, duration_ns.bit_length() - _KEPT_BITS)
    # The kept bits begin with a one, unless nothing was cut off: so buckets count on without gaps.
    return (shift << (_KEPT_BITS - 1)) + (duration_ns >> shift)


def _last_of(bucket: int) -> int:
    """The longest duration in nanoseconds that a bucket holds."""
    shift = max(0, (bucket >> (_KEPT_BITS - 1)) - 1)
    kept = bucket - (shift << (_KEPT_BITS - 1))
    return ((kept + 1) << shift) - 1
