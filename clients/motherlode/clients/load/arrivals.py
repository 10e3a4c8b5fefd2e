"""When the calls of an open loop are due."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

__all__ = ["poisson_arrivals"]

_BLOCK = 1024


def poisson_arrivals(
    rate: float, duration_s: float, generator: np.random.Generator
) -> Iterator[float]:
    """Due times of calls that come independently of each other, as those of many callers do.

    The gaps are exponential with mean 1/rate, so the number of calls in any second is Poisson.

    Args:
        rate: Calls per second on average.
        duration_s: Seconds in which calls are due.
        generator: The only source of chance; the same state gives the same times.

    Returns:
        Seconds from the start, ascending, below `duration_s`.

    Raises:
        ValueError: If `rate` or `duration_s` is not a positive, finite number.
    """
    for name, value in (("rate", rate), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive, finite number, got {value}")
    return _arrivals(rate, duration_s, generator)


def _arrivals(rate: float, duration_s: float, generator: np.random.Generator) -> Iterator[float]:
    due = 0.0
    while True:
        for gap in generator.exponential(1 / rate, _BLOCK).tolist():
            due += gap
            if due >= duration_s:
                return
            yield due
