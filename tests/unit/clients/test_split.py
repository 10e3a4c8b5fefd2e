from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from motherlode.clients import Limits, query_batch
from motherlode.clients.question import Question
from motherlode.clients.split import Splitter


def limits(max_queries: int = 0, max_bytes: int = 0, max_queued: int = 0) -> Limits:
    return Limits(max_queries, 0, 0, max_bytes, max_queued)


def parts(splitter: Splitter, num_queries: int) -> list[tuple[int, int]]:
    cuts = [0]
    while cuts[-1] < num_queries:
        cuts.append(splitter.stop(cuts[-1]))
    return list(itertools.pairwise(cuts))


def test_a_batch_within_the_limits_stays_whole():
    queries = query_batch(["a"] * 10)
    assert parts(Splitter(queries, Question(k=1), limits(10, 10_000, 10)), 10) == [(0, 10)]


def test_a_limit_of_zero_is_no_limit():
    queries = query_batch(["a" * 10_000] * 1000)
    assert parts(Splitter(queries, Question(k=100), limits()), 1000) == [(0, 1000)]


def test_a_part_is_no_longer_than_the_servers_queue():
    queries = query_batch(["a"] * 10)
    assert parts(Splitter(queries, Question(k=1), limits(8, 0, 4)), 10) == [(0, 4), (4, 8), (8, 10)]


def test_a_part_is_small_enough_for_its_answer():
    queries = query_batch(["a"] * 100)
    question = Question(k=100)
    expected = 100_000 // question.answer_bytes
    assert 1 < expected < 100
    assert parts(Splitter(queries, question, limits(0, 100_000)), 100)[0] == (0, expected)


def test_a_query_that_is_too_large_by_itself_travels_alone():
    queries = query_batch(["a", "b" * 5000, "c"])
    cuts = parts(Splitter(queries, Question(k=1, label_fields=[]), limits(0, 1000)), 3)
    assert cuts == [(0, 1), (1, 2), (2, 3)]


def test_room_is_left_for_a_long_filter_in_every_part():
    question = Question(k=1, label_fields=[], deny=["x" * 60] * 40)
    queries = query_batch(["y" * 300] * 40)
    for start, stop in parts(Splitter(queries, question, limits(0, 12_000)), 40):
        request = question.request(queries.rows(start, stop))
        assert stop - start > 1
        assert request.ByteSize() <= 12_000


def test_halving_ends_at_single_queries():
    splitter = Splitter(query_batch(["a"] * 5), Question(k=1), None)
    assert splitter.stop(0) == 5
    for expected in (2, 1, 1):
        splitter.halve(splitter.stop(0))
        assert splitter.stop(0) == expected


@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    max_queries=st.integers(0, 20),
    max_bytes=st.integers(0, 3000),
    k=st.integers(1, 20),
)
def test_parts_cover_the_batch_and_each_fits_or_is_a_single_query(sizes, max_queries, max_bytes, k):
    queries = query_batch(["x" * size for size in sizes])
    question = Question(k=k, label_fields=[])
    cuts = parts(Splitter(queries, question, limits(max_queries, max_bytes)), len(sizes))
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(sizes)
    for start, stop in cuts:
        request = question.request(queries.rows(start, stop))
        assert not max_queries or stop - start <= max_queries
        assert not max_bytes or request.ByteSize() <= max_bytes or stop - start == 1
