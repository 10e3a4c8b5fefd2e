"""The load generator in virtual time: what it sends when, and what it counts as latency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from motherlode.clients.load import (
    OK,
    Answer,
    ClosedLoop,
    LoadReport,
    OpenLoop,
    is_loopback,
    poisson_arrivals,
    run_load,
)
from tests.support.virtual_time import run_in_virtual_time


class OneAtATime:
    """A server that answers one call after another, each in `service_s(number)` seconds."""

    queries_per_call = 4

    def __init__(
        self,
        service_s: Callable[[int], float],
        answer: Callable[[int], Answer] = lambda _: Answer(OK),
    ) -> None:
        self.service_s = service_s
        self.answer = answer
        self.sent: list[float] = []
        self._turn = asyncio.Lock()

    async def connect(self) -> str:
        return "one at a time"

    async def call(self, number: int) -> Answer:
        self.sent.append(asyncio.get_running_loop().time())
        async with self._turn:
            await asyncio.sleep(self.service_s(number))
        return self.answer(number)

    async def close(self) -> None: ...


def load(protocol: OneAtATime, how: OpenLoop | ClosedLoop, duration_s: float = 10.0) -> LoadReport:
    return run_in_virtual_time(run_load(protocol, how, duration_s=duration_s))


def stall(number: int) -> float:
    """The hundredth call takes five seconds, all others a millisecond."""
    return 5.0 if number == 100 else 1e-3


def test_arrivals_are_those_of_a_poisson_process():
    times = np.array(list(poisson_arrivals(200.0, 50.0, np.random.default_rng(3))))
    gaps = np.diff(times, prepend=0)
    assert (gaps > 0).all()
    assert times[-1] < 50
    assert len(times) == pytest.approx(10_000, abs=4 * 100)
    # Exponential: the standard deviation is the mean, and a share of 1/e is longer than it.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (gaps > 1 / 200).mean() == pytest.approx(np.exp(-1), abs=0.02)
    # The counts of single seconds vary as much as their mean.
    counts = np.bincount(times.astype(int), minlength=50)
    assert 0.5 < counts.var() / counts.mean() < 1.7


def test_the_seed_decides_the_arrivals():
    def times(seed: int) -> list[float]:
        return list(poisson_arrivals(50.0, 4.0, np.random.default_rng(seed)))

    assert times(1) == times(1)
    assert times(1) != times(2)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_arrivals_need_a_positive_rate_and_duration(wrong):
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="rate: expected a positive"):
        poisson_arrivals(wrong, 1.0, generator)
    with pytest.raises(ValueError, match="duration_s: expected a positive"):
        poisson_arrivals(1.0, wrong, generator)


def test_an_open_loop_sends_on_time_though_nothing_is_answered():
    protocol = OneAtATime(stall)
    load(protocol, OpenLoop(rate=100, seed=7))
    due = list(poisson_arrivals(100, 10.0, np.random.default_rng(7)))
    assert protocol.sent == pytest.approx(due, abs=1e-9)


def test_what_waits_behind_a_stall_of_an_open_loop_counts_as_slow():
    report = load(OneAtATime(stall), OpenLoop(rate=100))
    # Some 500 of 1,000 calls are due during the five seconds, and wait half of them on average.
    assert report.answered.quantile(0.3) == pytest.approx(0.001, rel=0.01)
    assert 1.5 < report.answered.quantile(0.75) < 3.5
    assert report.answered.max_s == pytest.approx(5.0, rel=0.01)


def test_a_closed_loop_has_one_slow_call_at_a_stall():
    report = load(OneAtATime(stall), ClosedLoop(1))
    assert report.answered.quantile(0.999) == pytest.approx(0.001, rel=0.01)
    assert report.answered.max_s == pytest.approx(5.0)


def test_a_closed_loop_has_as_many_calls_under_way_as_callers():
    report = load(OneAtATime(lambda _: 0.5), ClosedLoop(4))
    # Each waits for the three before it.
    assert report.answered.quantile(0.5) == pytest.approx(2.0)
    assert report.num_ok == 23
    assert report.elapsed_s == pytest.approx(11.5)
    assert report.achieved_rate == pytest.approx(2.0)


def test_latency_of_an_open_loop_counts_from_when_a_call_was_due():
    class Busy(OneAtATime):
        async def call(self, number: int) -> Answer:
            # As if this machine were busy for two seconds: nothing else runs meanwhile.
            if number == 0:
                asyncio.get_running_loop()._jumping.now += 2.0
            return Answer(OK)

    report = load(Busy(stall), OpenLoop(rate=100), 3.0)
    assert report.lateness.max_s > 1.9
    assert report.answered.quantile(0.5) > 0.3


def test_rates_are_of_calls_due_and_of_calls_answered():
    def answer(number: int) -> Answer:
        return Answer("RESOURCE_EXHAUSTED", f"full at {number}") if number % 4 == 1 else Answer(OK)

    report = load(OneAtATime(lambda _: 0.0, answer), OpenLoop(rate=100))
    assert report.offered_rate == pytest.approx(report.num_due / 10)
    assert report.achieved_rate == pytest.approx(0.75 * report.offered_rate, rel=0.01)
    document = report.document()
    assert document["achieved_queries_per_s"] == 4 * report.achieved_rate
    assert list(document["statuses"]) == [OK, "RESOURCE_EXHAUSTED"]
    assert document["statuses"]["RESOURCE_EXHAUSTED"]["message"] == "full at 1"
    assert document["statuses"][OK]["calls"] + document["statuses"]["RESOURCE_EXHAUSTED"][
        "calls"
    ] == len(list(poisson_arrivals(100, 10.0, np.random.default_rng(0))))


def test_calls_beyond_those_that_may_be_under_way_are_counted_but_not_sent():
    protocol = OneAtATime(lambda _: 100.0)
    report = load(protocol, OpenLoop(rate=100, max_in_flight=5))
    assert len(protocol.sent) == report.num_ok == 5
    assert report.document()["statuses"]["NOT_SENT"]["calls"] == report.num_due - 5


@pytest.mark.parametrize("how", [OpenLoop(rate=10), ClosedLoop(8)])
def test_a_run_that_is_stopped_tells_what_it_has(how):
    async def work() -> LoadReport:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(4.5, stop.set)
        return await run_load(OneAtATime(lambda _: 1.0), how, duration_s=60, stop=stop)

    report = run_in_virtual_time(work())
    assert report.is_interrupted
    assert report.num_ok in (3, 4)
    assert report.sending_s == pytest.approx(4.5)
    assert report.document()["statuses"]["UNFINISHED"]["calls"] == report.num_due - report.num_ok


def test_no_task_is_left_when_a_run_is_stopped():
    async def work() -> int:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        await run_load(OneAtATime(lambda _: 9.0), OpenLoop(rate=50), duration_s=5, stop=stop)
        return len(asyncio.all_tasks())

    assert run_in_virtual_time(work()) == 1


@pytest.mark.parametrize("how", [OpenLoop(rate=10), ClosedLoop(2)])
def test_a_protocol_that_raises_ends_the_run(how):
    def answer(number: int) -> Answer:
        raise RuntimeError(f"a bug at {number}")

    with pytest.raises(RuntimeError, match="a bug at"):
        load(OneAtATime(lambda _: 0.0, answer), how)


def test_a_closed_loop_needs_a_caller():
    with pytest.raises(ValueError, match="concurrency: expected at least 1, got 0"):
        load(OneAtATime(stall), ClosedLoop(0))


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:8001", "LOCALHOST:1", "127.0.0.1:8001", "127.8.9.1:1", "[::1]:8001", "::1"),
        *("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:5", "dns:///localhost:8001", "unix:/a/b"),
    ],
)
def test_an_address_of_this_machine_is_known_by_itself(target):
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    [
        *("example.org:8001", "10.0.0.1:8001", "0.0.0.0:8001", "[::]:8001", "localhost.evil.org:1"),
        *("ipv4:127.0.0.1:1,10.0.0.1:1", "dns://10.0.0.1/localhost:1", "", "127.0.0.1.org:1"),
        *("[2001:db8::1]:8001", "xds:///localhost"),
    ],
)
def test_any_other_address_counts_as_another_machine(target):
    assert not is_loopback(target)
