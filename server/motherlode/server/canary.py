"""A share of the calls for a version that is on trial, and the verdict on how it did.

Belongs to the event loop's thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from motherlode.server.slot import ServedVersion

# Failures in a hundred calls that are not yet worth a rollback, however few the stable one has.
_TOLERATED_ERRORS = 0.01
# Differences in latency that nobody would feel.
_NEGLIGIBLE_S = 0.002
_PERCENTILES = (0.5, 0.99)


@final
@dataclass(frozen=True, slots=True)
class CanaryLimits:
    """How much worse than the serving version a canary may do.

    Attributes:
        min_calls: Its calls between two verdicts.
        error_factor: Largest ratio of the shares of calls that failed, beyond one in a hundred.
        latency_factor: Largest ratio of the medians, and of the 99th percentiles; 0 compares none.
    """

    min_calls: int = 100
    error_factor: float = 2.0
    latency_factor: float = 2.0


@final
@dataclass(frozen=True, slots=True)
class Record:
    """How one version did over a while.

    Attributes:
        num_answered: Calls answered.
        num_failed: Calls that were not by the version's fault: wrong requests, callers who leave
            and deadlines say nothing about it, and any caller can make them.
        durations_s: Seconds that the latest answers took.
    """

    num_answered: int
    num_failed: int
    durations_s: Sequence[float]

    @property
    def num_calls(self) -> int:
        """All calls."""
        return self.num_answered + self.num_failed

    @property
    def error_rate(self) -> float:
        """Share of the calls that failed; 0 of none."""
        return self.num_failed / self.num_calls if self.num_calls else 0.0


def trouble_of(canary: Record, stable: Record, limits: CanaryLimits) -> str:
    """What is too much worse, with both figures; empty where nothing is."""
    allowed = limits.error_factor * stable.error_rate + _TOLERATED_ERRORS
    if canary.error_rate > allowed:
        return (
            f"{canary.error_rate:.2%} of its {canary.num_calls} calls failed,"
            f" of the serving version's {stable.error_rate:.2%}"
        )
    if not (limits.latency_factor and canary.durations_s and stable.durations_s):
        return ""
    for share in _PERCENTILES:
        ours_s, theirs_s = (
            percentile(canary.durations_s, share),
            percentile(stable.durations_s, share),
        )
        if ours_s > limits.latency_factor * theirs_s + _NEGLIGIBLE_S:
            return (
                f"its p{100 * share:.0f} is {1e3 * ours_s:.3g} ms,"
                f" the serving version's {1e3 * theirs_s:.3g} ms"
            )
    return ""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@final
class Canary:
    """A version on trial beside the serving one.

    Attributes:
        served: The version on trial.
        stable: What it is compared with.
        percent: Share of the calls that name no version, 0 to 100.
        trouble: Why it gets no more calls; empty while it does.

    Args:
        served: See above.
        stable: See above.
        percent: See above.
        limits: What leads to trouble.
        on_trouble: Called once when it comes to that.
    """

    def __init__(
        self,
        served: ServedVersion,
        stable: ServedVersion,
        percent: float,
        limits: CanaryLimits,
        on_trouble: Callable[[], None],
    ) -> None:
        self.served = served
        self.stable = stable
        self.percent = percent
        self.trouble = ""
        self._limits = limits
        self._on_trouble = on_trouble
        self._num_calls = 0
        self._begin()

    def takes_next(self) -> bool:
        """Whether the next call that names no version is the canary's: exactly its share are."""
        if self.trouble or not self.percent:
            return False
        before = math.floor(self._num_calls * self.percent / 100)
        self._num_calls += 1
        is_due = math.floor(self._num_calls * self.percent / 100) > before
        return is_due and self._is_well()

    def _is_well(self) -> bool:
        record = _since(self.served, self._served_before)
        if record.num_calls < self._limits.min_calls:
            return True
        self.trouble = trouble_of(record, _since(self.stable, self._stable_before), self._limits)
        self._begin()
        if self.trouble:
            self._on_trouble()
        return not self.trouble

    def _begin(self) -> None:
        self._served_before = _counts(self.served)
        self._stable_before = _counts(self.stable)


def _counts(served: ServedVersion) -> tuple[int, int]:
    return served.statistics.answered.count, served.statistics.num_faults


def _since(served: ServedVersion, before: tuple[int, int]) -> Record:
    answered, failed = (now - then for now, then in zip(_counts(served), before, strict=True))
    latest_first = reversed(served.statistics.latest_s)
    return Record(answered, failed, list(islice(latest_first, answered)))
