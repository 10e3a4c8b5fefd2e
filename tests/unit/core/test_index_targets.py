"""Targets of an index: how they are read, and how far a value is from them."""

from __future__ import annotations

import math

import pytest

from motherlode.core.errors import ConfigError
from motherlode.core.index.targets import METRICS, Target, parse_targets, total_shortfall


def one(text: str, num_labels: int = 1000) -> Target:
    (target,) = parse_targets([text], num_labels=num_labels)
    return target


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("recall@10>=0.99", "recall@10", 0.99),
        ("recall@1 >= 99.5 %", "recall@1", 0.995),
        ("p50<=250us", "p50", 250e-6),
        ("p50<=250µs", "p50", 250e-6),
        ("p99<=2ms", "p99", 2e-3),
        ("p99 <= 2e-3 s", "p99", 2e-3),
        ("qps>=2000", "qps", 2000.0),
        ("qps>=2000/s", "qps", 2000.0),
        ("memory<=512MiB", "memory", 512 * 2.0**20),
        ("memory<=1.5GB", "memory", 1.5e9),
        ("memory<=100B", "memory", 100.0),
        ("build<=2min", "build", 120.0),
    ],
)
def test_a_target_is_a_metric_a_bound_and_a_unit(text: str, name: str, bound: float) -> None:
    target = one(text)
    assert target.name == name
    assert target.bound == pytest.approx(bound)
    assert target.text == text.replace(" ", "")


@pytest.mark.parametrize("metric", METRICS)
def test_the_example_of_each_metric_can_be_read(metric: str) -> None:
    assert one(METRICS[metric].example).metric == metric


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed<=2ms", r"target: expected one such as recall@10>=0\.99, .* got 'speed<=2ms'"),
        ("recall>=0.99", "target: expected one such as"),
        ("p99@10<=2ms", "target: expected one such as"),
        ("recall@10", "target: expected one such as"),
        ("", "target: expected one such as"),
        ("recall@10<=0.99", "target recall: expected >= and a bound"),
        ("p99>=2ms", "target p99: expected <= and a bound"),
        ("p99<=2", "target p99: expected a unit of us, µs, ms, s, min"),
        ("memory<=512 Mib", "target memory: expected a unit of B, kB, MB, GB, TB, KiB, MiB"),
        ("memory<=512mb", "target memory: expected a unit of"),
        ("memory<=512ms", "target memory: expected a unit of"),
        ("recall@10>=99ms", "target recall: expected a unit of none, %"),
        ("recall@10>=99", "target recall: expected a share up to 1, or up to 100 %"),
        ("recall@10>=101%", "target recall: expected a share up to 1, or up to 100 %"),
        ("recall@10>=0", "target recall: expected a positive number"),
        ("p50<=-1ms", "target p50: expected a positive number"),
        ("p50<=1e999s", "target p50: expected a positive number"),
        ("p50<=1.2.3s", "target p50: expected a positive number"),
        ("recall@0>=0.9", "target recall: k: expected 1 to 1,000, the labels"),
        ("recall@1001>=0.9", "target recall: k: expected 1 to 1,000, the labels"),
    ],
)
def test_what_is_no_target_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        one(text)


@pytest.mark.parametrize(
    "texts", [["p99<=2ms", "p99<=1ms"], ["recall@10>=0.9", "p50<=1ms", "recall@10>=90%"]]
)
def test_to_aim_at_the_same_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"once, got '{texts[0]} and {texts[-1]}'"):
        parse_targets(texts, num_labels=1000)


def test_recall_at_several_depths_is_several_targets() -> None:
    targets = parse_targets(["recall@1>=0.999", "recall@100>=0.9"], num_labels=1000)
    assert [target.k for target in targets] == [1, 100]


def test_there_must_be_a_target() -> None:
    with pytest.raises(ConfigError, match="target: expected one or more"):
        parse_targets([], num_labels=10)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("p99<=2ms", 2e-3, 0.0),
        ("p99<=2ms", 1e-3, 0.0),
        ("p99<=2ms", 4e-3, 1.0),
        ("qps>=1000", 500.0, 1.0),
        ("qps>=1000", 1000.0, 0.0),
        ("memory<=1KiB", 1536.0, 0.5),
        # What is missed counts: 2 % instead of 1 %.
        ("recall@10>=0.99", 0.98, 1.0),
        ("recall@10>=0.99", 0.99, 0.0),
        ("recall@10>=0.9", 0.9, 0.0),
        ("recall@10>=1", 1.0, 0.0),
    ],
)
def test_the_shortfall_is_relative_to_the_bound(text: str, value: float, expected: float) -> None:
    assert one(text).shortfall(value) == pytest.approx(expected)


def test_full_recall_that_is_missed_by_one_hit_is_missed() -> None:
    assert 0 < one("recall@10>=1").shortfall(1 - 1e-5) < one("recall@10>=1").shortfall(0.99)


def test_of_several_targets_it_counts_how_many_times_each_is_missed() -> None:
    targets = parse_targets(["p50<=1ms", "p99<=1ms"], num_labels=10)
    assert total_shortfall(targets, lambda t: 2e-3 if t.metric == "p50" else 3e-3) == (
        pytest.approx(math.log(2 * 3))
    )


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("p99<=2ms", 0.00213, "2.13 ms"),
        ("build<=2min", 75.0, "75 s"),
        ("memory<=1GiB", 2.0**21, "2.0 MiB"),
        ("recall@1>=0.9", 0.98765, "0.9877"),
        ("qps>=10", 12345.6, "12,346"),
    ],
)
def test_a_value_is_shown_in_the_units_of_its_metric(text: str, value: float, shown: str) -> None:
    assert one(text).show(value) == shown
