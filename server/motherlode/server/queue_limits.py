"""Whether a call may wait: by what waits already, and by how long it would wait.

A call that is not to be answered in time is best refused at once: its caller can turn to another
server, and this one does not spend on it what others need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import final

from motherlode.core.errors import OverloadedError, RequestTooLargeError
from motherlode.server.call import Call
from motherlode.server.fair_queue import FairQueue, Line

_SHORTEST_RETRY_S = 0.01
_LONGEST_RETRY_S = 5.0
_SECONDS_PER_QUERY_AT_FIRST = 0.001
_SMOOTHING = 0.1
# Of an efficient batch's time, what its fixed cost takes, in parts of what its queries take.
_FIXED_SHARE = 0.1
# Queries that may wait in any case: what keeps the engine busy between two bursts of calls, and
# their bounds, for queries that take long and for those that take no time.
_LULL_S = 0.005
_FEWEST_QUEUED, _MOST_QUEUED = 4, 16
# Of the longest wait, what calls may expect in an overload, where a longer queue gains nothing, and
# for how long: whether an overload is over shows only when more may wait. It is one when calls are
# refused for longer than a burst takes, with no longer pause in between.
_OVERLOADED_SHARE = 0.4
_OVERLOADED_S = 10.0
_BURST_S, _PAUSE_S = 0.1, 1.0

_QUERIES: Callable[[Line | Call], int] = attrgetter("num_left")
_BYTES: Callable[[Line | Call], int] = attrgetter("num_bytes")


@final
@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait.

    Attributes:
        max_queries: Queries of all callers together.
        max_bytes: Memory that they hold.
        max_delay_s: Longest wait that a call may expect when it comes, for what waits and for the
            batch under way; but for the queries of one efficient batch and for a few calls of any
            size, which may always wait. Where calls are refused for it for longer than a tenth of a
            second, others may expect 0.4 times as long, for ten seconds or until nothing waits:
            who calls in an overload does not wait behind a queue that never becomes shorter.
        max_batch: Queries of the largest batch.
    """

    max_queries: int
    max_bytes: int
    max_delay_s: float
    max_batch: int


@final
class Pace:
    """How fast queries are served, going by the latest batches.

    The time of a batch is taken as a fixed cost and a cost a query, found from small batches and
    from the latest ones.
    """

    def __init__(self) -> None:
        self._recent = _Mean(1.0, _SECONDS_PER_QUERY_AT_FIRST)
        # By the binary length of the number of queries.
        self._by_size: dict[int, _Mean] = {}
        self._latest = 0

    @property
    def seconds_per_query(self) -> float:
        """Mean over the queries of the latest batches, so that large batches count for more."""
        return self._recent.duration_s / self._recent.num_queries

    def duration_of(self, num_queries: int) -> float:
        """Seconds that a batch of so many queries is expected to take."""
        like = self._by_size.get(num_queries.bit_length())
        each_s = like.duration_s / like.num_queries if like else self.seconds_per_query
        return num_queries * each_s

    def note(self, num_queries: int, duration_s: float) -> None:
        """A batch of so many queries took so long, the ways there and back included."""
        self._recent.add(num_queries, duration_s)
        self._latest = num_queries.bit_length()
        mean = self._by_size.setdefault(self._latest, _Mean(num_queries, duration_s))
        mean.add(num_queries, duration_s)

    def efficient_batch(self, most: int) -> int:
        """Queries that make a batch large enough for its fixed cost to matter little.

        Args:
            most: Where larger batches are always better, as far as is known.
        """
        if len(self._by_size) < 2:
            return most
        small = self._by_size[min(self._by_size)]
        large = self._by_size[max(self._by_size)]
        if self._by_size[self._latest] is not small:
            large = self._by_size[self._latest]
        each_s = (large.duration_s - small.duration_s) / (large.num_queries - small.num_queries)
        fixed_s = max(0.0, small.duration_s - each_s * small.num_queries)
        if each_s * most * _FIXED_SHARE <= fixed_s:
            return most
        return min(most, max(self.fewest_queued, int(fixed_s / (each_s * _FIXED_SHARE))))

    @property
    def fewest_queued(self) -> int:
        """Queries that bridge a lull in the arrivals."""
        return min(_MOST_QUEUED, max(_FEWEST_QUEUED, int(_LULL_S / self.seconds_per_query)))


@final
class _Mean:
    """Sizes and times of batches, the latest most."""

    __slots__ = ("duration_s", "num_queries")

    def __init__(self, num_queries: float, duration_s: float) -> None:
        self.num_queries = float(num_queries)
        self.duration_s = duration_s

    def add(self, num_queries: float, duration_s: float) -> None:
        self.num_queries += _SMOOTHING * (num_queries - self.num_queries)
        self.duration_s += _SMOOTHING * (duration_s - self.duration_s)


@final
class Admission:
    """Guards the queue.

    Args:
        limits: What may wait.
        queue: What waits.
        on_refusal: Gets each refusal, also of a call that had been admitted and has to make room.
    """

    def __init__(
        self, limits: QueueLimits, queue: FairQueue, on_refusal: Callable[[OverloadedError], None]
    ) -> None:
        self.pace = Pace()
        self._busy_until = 0.0
        self._following_s = 0.0
        self._pressed_since = self._pressed_until = 0.0
        self._overloaded_until = 0.0
        self._limits = limits
        self._queue = queue
        self._on_refusal = on_refusal

    def begin(self, num_queries: int, now: float) -> float:
        """A batch of so many queries is under way from now on.

        Returns:
            Seconds that it is expected to take.
        """
        expected_s = self.pace.duration_of(num_queries)
        self._busy_until = now + expected_s
        return expected_s

    def follow(self, num_queries: int) -> None:
        """A batch of so many queries begins when the one under way ends."""
        self._following_s = self.pace.duration_of(num_queries)

    def end(self, num_queries: int, duration_s: float) -> None:
        """The batch under way took so long; one that follows is to begin now."""
        self.pace.note(num_queries, duration_s)
        self._busy_until = self._following_s = 0.0

    def rest(self) -> None:
        """Nothing is under way and nothing waits, so that an overload is over."""
        self._overloaded_until = self._pressed_until = 0.0

    def admit(self, call: Call, now: float) -> None:
        """Makes sure that there is room for a call, and that it will not wait in vain.

        A full queue refuses the latest call of the caller who has the most in it, be it this one or
        one that waits.

        Raises:
            OverloadedError: If it has to come again later.
            RequestTooLargeError: If it does not fit into an empty queue.
        """
        self._check_fits(call)
        self._check_wait(call, now)
        limits, queue = self._limits, self._queue
        excess = queue.num_left + call.num_left - limits.max_queries
        if excess > 0:
            told = f"{queue.num_left} queries wait, of at most {limits.max_queries}"
            self._make_room(call, excess, _QUERIES, self._refusal(told, "QUEUE_FULL", now))
        excess = queue.num_bytes + call.num_bytes - limits.max_bytes
        if excess > 0:
            told = f"queries that wait hold {queue.num_bytes} bytes, of at most {limits.max_bytes}"
            self._make_room(call, excess, _BYTES, self._refusal(told, "QUEUE_BYTES", now))

    def _check_fits(self, call: Call) -> None:
        if call.num_left > self._limits.max_queries:
            expected = f"at most {self._limits.max_queries} queries, as many as may wait"
            raise RequestTooLargeError("queries", expected=expected, actual=call.num_left)
        if call.num_bytes > self._limits.max_bytes:
            expected = f"at most {self._limits.max_bytes} bytes in memory, as may wait"
            raise RequestTooLargeError("queries", expected=expected, actual=call.num_bytes)

    def _check_wait(self, call: Call, now: float) -> None:
        num_before = self._queue.num_before(call.caller)
        queued_s = num_before * self.pace.seconds_per_query
        wait_s = self._busy_s(now) + queued_s
        allowed_s = self._allowed_s(now)
        if wait_s > allowed_s and not self._may_wait(call, num_before):
            # Whoever has most of the queue waits for itself, and others need not suffer for it.
            is_own_fault = self._queue.has_more_than_its_share(call.caller)
            if wait_s > self._limits.max_delay_s and not is_own_fault:
                self._note_pressure(now)
            told = f"at most {allowed_s:.3g} s is allowed"
            self._refuse(wait_s, told, "QUEUE_DELAY", now)
        # The batch under way may be of another model and end much sooner: where nothing waits,
        # nobody is turned away for it.
        queued_s += self._following_s
        if now < call.deadline < now + queued_s:
            told = f"the deadline is {call.deadline - now:.3g} s away"
            self._refuse(queued_s, told, "QUEUE_DEADLINE", now)

    def _allowed_s(self, now: float) -> float:
        share = _OVERLOADED_SHARE if now < self._overloaded_until else 1.0
        return self._limits.max_delay_s * share

    def _note_pressure(self, now: float) -> None:
        """A call was refused for the longest wait that there may be."""
        if now > self._pressed_until:
            self._pressed_since = now
        self._pressed_until = now + _PAUSE_S
        if now - self._pressed_since >= _BURST_S:
            self._overloaded_until = now + _OVERLOADED_S
            # If the first who may wait longer again is refused, it never was over.
            self._pressed_until = self._overloaded_until + _PAUSE_S

    def _busy_s(self, now: float) -> float:
        return max(0.0, self._busy_until - now) + self._following_s

    def _may_wait(self, call: Call, num_before: int) -> bool:
        """Whether a call may wait longer than others."""
        max_batch = self._limits.max_batch
        # A few large calls are no backlog: whoever sent them waits for answers, and sends no more.
        is_short = self._queue.num_calls < min(self.pace.fewest_queued, max_batch)
        return call.is_patient or is_short or num_before < self.pace.efficient_batch(max_batch)

    def _make_room(
        self,
        call: Call,
        excess: int,
        size_of: Callable[[Line | Call], int],
        refusal: OverloadedError,
    ) -> None:
        victims: list[Call] = []
        while excess > 0:
            victim = self._queue.withdraw_for(call, size_of)
            if victim is None:
                # Each was the last of its line and group, and is again.
                for withdrawn in reversed(victims):
                    self._queue.put(withdrawn)
                self._on_refusal(refusal)
                raise refusal
            victims.append(victim)
            excess -= size_of(victim)
        for victim in victims:
            if not victim.future.done():
                self._on_refusal(refusal)
                victim.future.set_exception(refusal)

    def _refuse(self, wait_s: float, told: str, reason: str, now: float) -> None:
        refusal = self._refusal(f"a wait of {wait_s:.3g} s is expected, {told}", reason, now)
        self._on_refusal(refusal)
        raise refusal

    def _refusal(self, told: str, reason: str, now: float) -> OverloadedError:
        drained_s = self._busy_s(now) + self._queue.num_left * self.pace.seconds_per_query
        retry_after_s = min(max(drained_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
        return OverloadedError(told, retry_after_s=retry_after_s, reason=reason)
