from __future__ import annotations

import pytest

from motherlode.core.query_path import StageTimes
from motherlode.server.canary import Canary, CanaryLimits, Record, percentile, trouble_of
from motherlode.server.metrics import Meters
from motherlode.server.slot import ServedVersion, Slot
from tests.support.fake_retriever import FakeRetriever

LIMITS = CanaryLimits(min_calls=10)


def served(version: int) -> ServedVersion:
    return ServedVersion(FakeRetriever(version).as_retriever, Meters().version("fake", version))


def answer(one: ServedVersion, duration_s: float = 0.01, times: int = 1) -> None:
    for _ in range(times):
        one.statistics.add_answer(
            1, StageTimes(), queue_s=0.0, writing_s=0.0, duration_s=duration_s
        )


def fail(one: ServedVersion, times: int) -> None:
    for _ in range(times):
        one.statistics.failed.add(0.01)
        one.statistics.num_faults += 1


class Trial:
    """A canary of 10 per cent, and how often it was found wanting."""

    def __init__(self, percent: float = 10, limits: CanaryLimits = LIMITS) -> None:
        self.new, self.old = served(2), served(1)
        self.num_troubles = 0
        self.canary = Canary(self.new, self.old, percent, limits, self.count)

    def count(self) -> None:
        self.num_troubles += 1

    def share_of(self, num_calls: int) -> list[int]:
        return [i for i in range(1, num_calls + 1) if self.canary.takes_next()]


def test_ten_per_cent_is_every_tenth_call() -> None:
    assert Trial(10).share_of(50) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("percent", "num_calls", "share"),
    [
        (0.0, 1000, 0),
        (0.1, 1000, 1),
        (12.5, 1000, 125),
        (33.3, 1000, 333),
        (100.0, 1000, 1000),
    ],
)
def test_a_share_is_exact(percent: float, num_calls: int, share: int) -> None:
    assert len(Trial(percent).share_of(num_calls)) == share


def test_a_share_can_change_on_the_way() -> None:
    trial = Trial(10)
    assert len(trial.share_of(100)) == 10
    trial.canary.percent = 50
    assert abs(len(trial.share_of(100)) - 50) <= 1


def test_only_calls_that_name_no_version_are_shared_out() -> None:
    slot = Slot("fake")
    slot.swap(served(1), num_kept=0)
    trial = Trial(50)
    slot.add(trial.new)
    slot.canary = trial.canary
    slot.aliases = {"stable": 1, "canary": 2}
    named = [slot.choose(version=1), slot.choose(alias="stable"), slot.choose(alias="canary")]
    assert [one.version for one in named] == [1, 1, 2]
    assert [slot.choose().version for _ in range(4)] == [1, 2, 1, 2]
    assert slot.serving().version == 1


def test_too_few_calls_are_no_reason() -> None:
    trial = Trial(100)
    fail(trial.new, 9)
    assert trial.canary.takes_next()
    assert trial.num_troubles == 0


def test_a_canary_that_fails_gets_no_more_calls_and_is_told_of_once() -> None:
    trial = Trial(100)
    answer(trial.old, times=10)
    fail(trial.new, 5)
    answer(trial.new, times=5)
    assert trial.share_of(3) == []
    assert trial.canary.trouble == ("50.00% of its 10 calls failed, of the serving version's 0.00%")
    assert trial.num_troubles == 1


def test_a_slow_canary_gets_no_more_calls() -> None:
    trial = Trial(100)
    answer(trial.old, 0.01, times=10)
    answer(trial.new, 0.05, times=10)
    assert trial.share_of(3) == []
    assert trial.canary.trouble == "its p50 is 50 ms, the serving version's 10 ms"


def test_what_callers_do_wrong_does_not_count_against_a_canary() -> None:
    trial = Trial(100)
    for _ in range(1000):
        trial.new.statistics.failed.add(0.01)
    answer(trial.new, times=10)
    assert trial.canary.takes_next()
    assert trial.canary.trouble == ""


def test_each_verdict_is_on_the_calls_since_the_last_one() -> None:
    trial = Trial(100)
    answer(trial.new, times=1000)
    assert trial.canary.takes_next()
    fail(trial.new, 10)
    assert not trial.canary.takes_next()


def test_what_went_before_the_trial_does_not_count() -> None:
    new, old = served(2), served(1)
    fail(new, 100)
    canary = Canary(new, old, 100, LIMITS, lambda: None)
    answer(new, times=10)
    assert canary.takes_next()
    assert canary.trouble == ""


def record(num_failed: int = 0, duration_s: float = 0.01, slow_s: float = 0.01) -> Record:
    return Record(100 - num_failed, num_failed, [duration_s] * 97 + [slow_s] * 3)


@pytest.mark.parametrize(
    ("canary", "stable", "word"),
    [
        (record(), record(), ""),
        (record(num_failed=1), record(), ""),
        (record(num_failed=2), record(), "failed"),
        (record(num_failed=11), record(num_failed=5), ""),
        (record(num_failed=12), record(num_failed=5), "failed"),
        (record(0, 0.0219), record(), ""),
        (record(0, 0.0221), record(), "p50"),
        (record(0, 0.01, 0.5), record(), "p99"),
        (record(0, 0.01, 0.5), record(0, 0.01, 0.3), ""),
        (record(0, 0.5), Record(0, 0, []), ""),
    ],
)
def test_a_canary_may_be_so_much_worse_and_no_more(
    canary: Record, stable: Record, word: str
) -> None:
    trouble = trouble_of(canary, stable, CanaryLimits())
    assert word in trouble
    assert bool(word) == bool(trouble)


def test_times_need_not_be_compared() -> None:
    limits = CanaryLimits(latency_factor=0)
    assert trouble_of(record(0, 10.0), record(), limits) == ""


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.99, 4), (0.25, 1), (0.26, 2)])
def test_a_percentile_is_a_value_that_was_seen(share: float, value: int) -> None:
    assert percentile([4, 2, 3, 1], share) == value
