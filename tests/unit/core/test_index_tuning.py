"""Measuring index settings, their front and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest

from motherlode.core.errors import ConfigError
from motherlode.core.index import ExactConfig, HnswConfig, IvfFlatConfig, build_index
from motherlode.core.index import tuning as tuning_module
from motherlode.core.index.grid import GRID, Sweep, sweeps_of
from motherlode.core.index.targets import Target, parse_targets
from motherlode.core.index.tuning import (
    MIN_QUERIES,
    Measured,
    Measurement,
    choose,
    closest,
    pareto_front,
    time_alone,
    time_batches,
)
from motherlode.core.queries import FloatArray
from tests.support.embeddings import clustered


def setting(**changes: object) -> Measured:
    """Some figures; `recall` stands for recall@10."""
    recall = changes.pop("recall", 0.9)
    whole = Measured(
        family="ivf_flat",
        config=IvfFlatConfig(),
        recalls={10: recall},  # type: ignore[dict-item]
        recall_errors={10: 0.01},
        p50_s=1e-3,
        p99_s=2e-3,
        queries_per_s=1000.0,
        memory_bytes=1000,
        build_s=1.0,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def aims(*texts: str) -> tuple[Target, ...]:
    return parse_targets(texts, num_labels=1000)


class TickingClock:
    """Seconds that pass as a search is asked to let them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def queries(num_queries: int) -> FloatArray:
    """float32 [num_queries, 1]: query i is [i]."""
    return np.arange(num_queries, dtype=np.float32)[:, None]


def slow_search(clock: TickingClock, seconds: Callable[[int, float], float]) -> Callable:  # type: ignore[type-arg]
    """A search whose time follows from how often it was asked and the first query's value."""
    calls = 0

    def search(queries_BD: FloatArray) -> None:
        nonlocal calls
        clock.now += seconds(calls, float(queries_BD[0, 0]))
        calls += 1

    return search


# Choice


def test_the_cheapest_that_meets_all_targets_answers_a_query_soonest() -> None:
    slow, fast = setting(recall=0.999, p50_s=2e-3), setting(recall=0.991, p50_s=1e-3)
    faster_but_short = setting(recall=0.98, p50_s=1e-4)
    assert choose([slow, fast, faster_but_short], aims("recall@10>=0.99")) is fast


def test_every_target_counts() -> None:
    fast_but_large = setting(recall=0.99, p50_s=1e-4, memory_bytes=5000)
    small = setting(recall=0.99, p50_s=1e-3, memory_bytes=1000)
    seldom_slow = setting(recall=0.99, p50_s=1e-4, p99_s=1.0)
    targets = aims("recall@10>=0.99", "memory<=2000B", "p99<=10ms")
    assert choose([fast_but_large, seldom_slow, small], targets) is small


def test_of_about_equally_fast_settings_the_smallest_is_taken_then_the_soonest_built() -> None:
    fastest = setting(recall=0.99, p50_s=1.00e-3, memory_bytes=2000)
    smallest = setting(recall=0.99, p50_s=1.08e-3, build_s=5.0)
    sooner = setting(recall=0.99, p50_s=1.09e-3, build_s=2.0)
    slower = setting(recall=0.99, p50_s=1.2e-3, memory_bytes=10)
    assert choose([fastest, smallest, slower, sooner], aims("recall@10>=0.9")) is sooner


def test_without_a_target_of_recall_the_highest_recall_is_taken() -> None:
    fast, thorough = setting(recall=0.9, p50_s=1e-4), setting(recall=0.95, p50_s=9e-4)
    too_slow = setting(recall=1.0, p50_s=5e-3)
    assert choose([fast, thorough, too_slow], aims("p50<=1ms")) is thorough


def test_nothing_is_chosen_where_nothing_meets_the_targets() -> None:
    assert choose([setting(recall=0.98)], aims("recall@10>=0.99")) is None
    assert choose([setting(recall=1.0, queries_per_s=9.0)], aims("qps>=10")) is None


def test_the_closest_misses_the_targets_by_least() -> None:
    twice_as_slow = setting(recall=0.99, p99_s=4e-3)
    misses_ten_times = setting(recall=0.9, p99_s=1e-3)
    targets = aims("recall@10>=0.99", "p99<=2ms")
    assert closest([misses_ten_times, twice_as_slow], targets) is twice_as_slow


def test_a_setting_meets_recall_at_every_depth_that_is_aimed_at() -> None:
    uneven = setting(recalls={1: 0.999, 100: 0.8})
    assert choose([uneven], aims("recall@1>=0.99")) is uneven
    assert choose([uneven], aims("recall@1>=0.99", "recall@100>=0.9")) is None


# Front


def test_the_front_leaves_out_what_another_beats_and_keeps_what_is_best_in_something() -> None:
    exact = setting(recall=1.0, p50_s=1e-2, memory_bytes=500)
    fast = setting(recall=0.95, p50_s=1e-4)
    beaten = setting(recall=0.95, p50_s=2e-4)
    equal = setting(recall=0.95, p50_s=1e-4)
    assert pareto_front([exact, fast, beaten, equal]) == [fast, equal, exact]


def test_no_setting_of_a_front_beats_another_and_all_others_are_beaten() -> None:
    generator = np.random.default_rng(0)
    drawn = [
        setting(recall=r, p50_s=s, memory_bytes=int(1000 * m))
        for r, s, m in generator.random((60, 3))
    ]
    front = pareto_front(drawn)

    def beats(one: Measured, other: Measured) -> bool:
        pairs = list(zip(one.costs(), other.costs(), strict=True))
        return all(a <= b for a, b in pairs) and one.costs() != other.costs()

    assert 1 < len(front) < len(drawn)
    for m in drawn:
        assert (m in front) != any(beats(other, m) for other in drawn)
    assert all(a.p50_s <= b.p50_s for a, b in pairwise(front))


# Times


def test_of_several_rounds_the_least_time_of_each_query_counts() -> None:
    clock = TickingClock()

    # Query i takes i seconds, and 1,000 more in the first round.
    def seconds(calls: int, value: float) -> float:
        return value + (1000.0 if calls < 5 + MIN_QUERIES else 0.0)

    times_T = time_alone(slow_search(clock, seconds), queries(300), clock)
    np.testing.assert_allclose(times_T, np.arange(MIN_QUERIES))


def test_a_round_goes_on_to_all_queries_while_there_is_time() -> None:
    clock = TickingClock()
    times_T = time_alone(slow_search(clock, lambda *_: 1e-6), queries(150), clock)
    assert len(times_T) == 150


def test_queries_a_second_are_those_of_whole_batches() -> None:
    clock = TickingClock()
    sizes: list[int] = []

    def search(queries_BD: FloatArray) -> None:
        sizes.append(len(queries_BD))
        clock.now += 0.5

    assert time_batches(search, queries(100), clock) == pytest.approx(64 / 0.5)
    assert set(sizes) == {64}


# Measurement


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_TIMING_S", 1e-3)


@pytest.fixture(scope="module")
def embeddings() -> tuple[FloatArray, FloatArray]:
    labels_LD, queries_BD = clustered(600, 16)
    return labels_LD, queries_BD[:120]


def measurement(embeddings: tuple[FloatArray, FloatArray], **changes: object) -> Measurement:
    """One whose clock goes on by a millisecond a look."""
    ticks = count()
    whole = Measurement(
        labels_LD=embeddings[0],
        queries_BD=embeddings[1],
        ks=(1, 10),
        num_hits=10,
        seed=0,
        other_bytes=1_000_000,
        clock=lambda: 1e-3 * next(ticks),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


SWEEP = Sweep("ivf_flat", ({"kind": "ivf_flat", "nlist": 40},), "nprobe", (1, 2, 4, 8, 64))


def test_one_build_is_swept_from_fast_to_thorough_until_nothing_is_missed(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    built: list[float] = []
    measured = list(
        measurement(embeddings).run([SWEEP], on_built=lambda _s, _c, seconds: built.append(seconds))
    )
    assert len(built) == 1
    recalls = [m.recall for m in measured]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1
    assert all(recall < 1 for recall in recalls[:-1])


def test_every_variant_is_swept_over_the_same_build(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    built: list[float] = []
    variants = ({"nprobe": 1}, {"nprobe": 2})
    sweep = Sweep("ivf_flat", ({"kind": "ivf_flat", "nlist": 40},), variants=variants)
    measured = list(
        measurement(embeddings).run([sweep], on_built=lambda _s, _c, seconds: built.append(seconds))
    )
    assert len(built) == 1
    assert [m.config for m in measured] == [
        IvfFlatConfig(nlist=40, nprobe=1),
        IvfFlatConfig(nlist=40, nprobe=2),
    ]


def test_the_figures_of_a_swept_setting_are_those_of_an_index_built_with_it(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    labels_LD, queries_BD = embeddings
    measured = list(measurement(embeddings).run([SWEEP]))
    exact = build_index(ExactConfig(), labels_LD, seed=0)
    best_BK = exact.search(queries_BD, 10).scores.reshape(len(queries_BD), 10)
    for m in measured:
        index = build_index(m.config, labels_LD, seed=0)
        found_BK = index.search(queries_BD, 10).scores.reshape(len(queries_BD), 10)
        assert m.recalls[10] == pytest.approx((found_BK >= best_BK[:, -1:]).mean())
        assert m.recalls[1] == pytest.approx((found_BK[:, 0] >= best_BK[:, 0]).mean())
        assert m.memory_bytes == 1_000_000 + index.predicted_bytes
        assert [m.p50_s, m.p99_s] == pytest.approx([1e-3, 1e-3])
        assert m.queries_per_s == pytest.approx(64 / 1e-3)


def test_a_sweep_ends_where_its_recall_is_reached(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    measured = list(measurement(embeddings).run([SWEEP], aims("recall@10>=0.5")))
    assert [m.recall >= 0.5 for m in measured] == [False] * (len(measured) - 1) + [True]


@pytest.mark.parametrize("metric", ["p50", "p99"])
def test_a_sweep_ends_where_it_is_far_too_slow(
    embeddings: tuple[FloatArray, FloatArray], metric: str
) -> None:
    assert len(list(measurement(embeddings).run([SWEEP], aims(f"{metric}<=0.5ms")))) == 1
    assert len(list(measurement(embeddings).run([SWEEP], aims(f"{metric}<=0.9ms")))) > 1


def test_what_seldom_takes_long_does_not_end_a_sweep() -> None:
    seldom_slow = setting(p50_s=1e-3, p99_s=1.0)
    assert not tuning_module._is_last(seldom_slow, None, aims("p99<=2ms"))
    assert tuning_module._is_last(replace(seldom_slow, p50_s=4e-3), None, aims("p99<=2ms"))


def test_a_sweep_ends_where_it_is_slower_than_exact_search_alone_and_in_batches() -> None:
    exact = setting(recall=1.0, p50_s=1e-3, queries_per_s=1000.0)
    slower = setting(p50_s=2e-3, queries_per_s=900.0)
    assert tuning_module._is_last(slower, exact, ())
    assert not tuning_module._is_last(replace(slower, queries_per_s=1100.0), exact, ())
    assert not tuning_module._is_last(replace(slower, p50_s=0.9e-3), exact, ())


def test_every_family_of_the_grid_can_be_measured(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    measured = list(measurement(embeddings).run(GRID))
    assert {m.family for m in measured} == {sweep.family for sweep in GRID}
    exact = next(m for m in measured if m.family == "exact")
    assert (exact.recall, exact.recall_errors[10]) == (1, 0)


def test_an_index_with_other_search_settings_shares_what_was_built(
    embeddings: tuple[FloatArray, FloatArray],
) -> None:
    labels_LD, queries_BD = embeddings
    narrow = build_index(IvfFlatConfig(nlist=40, nprobe=1), labels_LD, seed=3)
    wide = narrow.configured(IvfFlatConfig(nlist=40, nprobe=8))
    fresh = build_index(IvfFlatConfig(nlist=40, nprobe=8), labels_LD, seed=3)
    np.testing.assert_array_equal(
        wide.search(queries_BD, 10).labels, fresh.search(queries_BD, 10).labels
    )
    assert narrow.config == IvfFlatConfig(nlist=40, nprobe=1)


# Grid


def test_the_families_of_a_grid_are_unlike_and_exact_search_is_the_first() -> None:
    families = [sweep.family for sweep in GRID]
    assert families[0] == "exact"
    assert len(set(families)) == len(families)


@pytest.mark.parametrize("sweep", GRID, ids=lambda sweep: sweep.family)
def test_every_setting_of_the_grid_is_valid_and_goes_from_fast_to_thorough(sweep: Sweep) -> None:
    assert list(sweep.values) == sorted(set(sweep.values))
    for build in sweep.builds:
        configs = sweep.configs(build, 1)
        assert len({config.model_dump_json() for config in configs}) == max(1, len(sweep.values))


def test_a_sweep_is_over_the_setting_that_matters_at_search_time() -> None:
    sweep = Sweep("hnsw", ({"kind": "hnsw", "num_neighbors": 8},), "ef_search", (16, 32))
    assert sweep.configs(sweep.builds[0], 10) == [
        HnswConfig(num_neighbors=8, ef_search=16),
        HnswConfig(num_neighbors=8, ef_search=32),
    ]


@pytest.mark.parametrize(
    ("num_hits", "first"), [(1, 16), (16, 16), (17, 16), (31, 16), (32, 32), (100, 64), (5000, 128)]
)
def test_of_settings_that_come_to_the_same_for_so_many_hits_one_is_tried(
    num_hits: int, first: int
) -> None:
    build = {"kind": "hnsw"}
    sweep = Sweep("hnsw", (build,), "ef_search", (16, 32, 64, 128), is_at_least_hits=True)
    assert sweep.configs(build, num_hits)[0] == HnswConfig(ef_search=first)
    assert len(sweep.configs(build, num_hits)) == 4 - (16, 32, 64, 128).index(first)


def test_families_are_taken_by_name() -> None:
    assert [sweep.family for sweep in sweeps_of(["hnsw", "exact"])] == ["exact", "hnsw"]
    assert sweeps_of(None) == GRID
    with pytest.raises(ConfigError, match=r"families: expected of exact, ivf_flat, .* got 'flat'"):
        sweeps_of(["exact", "flat"])
