from __future__ import annotations

from collections import Counter, defaultdict
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.server.call import Call
from motherlode.server.fair_queue import FairQueue, Line
from tests.support.waiting_calls import waiting_call


def everything(_: Call) -> bool:
    return True


def queue_of(*calls: Call) -> FairQueue:
    queue = FairQueue(everything)
    for call in calls:
        queue.put(call)
    return queue


def take(queue: FairQueue, room: int) -> list[tuple[Call, int, int]]:
    return [(part.call, part.start, part.stop) for part in queue.take(lambda _: room)]


def take_all(queue: FairQueue, room: int) -> list[list[tuple[Call, int, int]]]:
    batches = []
    while batch := take(queue, room):
        batches.append(batch)
    return batches


def queries_of(line: Line | Call) -> int:
    return line.num_left


def bytes_of(line: Line | Call) -> int:
    return line.num_bytes


def test_an_empty_queue_has_nothing_to_take() -> None:
    assert take(FairQueue(everything), 4) == []


def test_calls_of_several_callers_share_a_batch() -> None:
    calls = [waiting_call(caller=name) for name in "abc"]
    assert take(queue_of(*calls), 4) == [(call, 0, 1) for call in calls]


def test_callers_take_turns_by_queries_and_not_by_calls() -> None:
    large = [waiting_call(8, caller="large") for _ in range(2)]
    small = [waiting_call(2, caller="small") for _ in range(8)]
    for batch in take_all(queue_of(*large, *small), 4):
        sizes = Counter({"large": 0, "small": 0})
        for call, start, stop in batch:
            sizes[call.caller] += stop - start
        assert sizes == {"large": 2, "small": 2}


def test_a_call_that_is_too_large_runs_in_parts_and_others_between_them() -> None:
    large, small = waiting_call(10, caller="large"), waiting_call(caller="small")
    queue = queue_of(large)
    first = take(queue, 4)
    queue.put(small)
    assert first == [(large, 0, 4)]
    assert take(queue, 4) == [(small, 0, 1), (large, 4, 7)]
    assert take(queue, 4) == [(large, 7, 10)]
    assert (queue.num_left, queue.num_bytes) == (0, 0)


def test_large_calls_share_a_batch_with_each_other() -> None:
    one, other = waiting_call(100, caller="one"), waiting_call(100, caller="other")
    assert take(queue_of(one, other), 64) == [(one, 0, 32), (other, 0, 32)]


def test_a_small_call_is_not_cut_to_fill_a_batch() -> None:
    calls = [waiting_call(6, caller=name) for name in "aba"]
    assert take_all(queue_of(*calls), 13) == [
        [(calls[0], 0, 6), (calls[1], 0, 6)],
        [(calls[2], 0, 6)],
    ]


def test_a_group_does_not_wait_until_another_one_is_done() -> None:
    many = [waiting_call(caller="one", k=1) for _ in range(3)]
    other = waiting_call(caller="one", k=2)
    batches = take_all(queue_of(*many, other), 1)
    assert [call.k for [(call, _, _)] in batches] == [1, 2, 1, 1]


def test_a_caller_who_comes_new_is_no_better_off_than_those_who_wait() -> None:
    queue = queue_of(*(waiting_call(caller="old") for _ in range(10)))
    for _ in range(5):
        take(queue, 1)
    for _ in range(5):
        queue.put(waiting_call(caller="new"))
    rest = [call.caller for [(call, _, _)] in take_all(queue, 1)]
    assert rest[:4].count("new") == 2


def test_what_is_not_wanted_is_taken_out() -> None:
    lost, kept = waiting_call(3, num_bytes=5), waiting_call(num_bytes=7)
    queue = FairQueue(lambda call: call is kept)
    queue.put(lost)
    queue.put(kept)
    assert take(queue, 8) == [(kept, 0, 1)]
    assert (queue.num_left, queue.num_bytes) == (0, 0)


def test_a_call_holds_its_memory_until_its_last_part_is_taken() -> None:
    queue = queue_of(waiting_call(3, num_bytes=50))
    take(queue, 2)
    assert (queue.num_left, queue.num_bytes) == (1, 50)
    take(queue, 2)
    assert (queue.num_left, queue.num_bytes) == (0, 0)


def test_who_has_little_waiting_is_soon_served() -> None:
    queue = queue_of(*(waiting_call(caller="bulk") for _ in range(50)))
    assert queue.num_before("bulk") == 50
    assert queue.num_before("single") == 1


def test_room_is_made_by_the_caller_who_takes_most() -> None:
    calls = [waiting_call(3, caller="a", arrived=i, num_bytes=1) for i in range(2)]
    heavy = waiting_call(1, caller="b", num_bytes=100)
    queue = queue_of(*calls, heavy)
    new = waiting_call(1, caller="c", num_bytes=1)
    assert queue.withdraw_for(new, queries_of) is calls[1]
    assert queue.withdraw_for(new, bytes_of) is heavy
    assert (queue.num_left, queue.num_bytes) == (3, 1)
    assert take_all(queue, 8) == [[(calls[0], 0, 3)]]


def test_nobody_makes_room_for_a_caller_who_would_have_most() -> None:
    queue = queue_of(waiting_call(3, caller="a"), waiting_call(2, caller="b"))
    assert queue.withdraw_for(waiting_call(1, caller="b"), queries_of) is None
    assert queue.withdraw_for(waiting_call(3, caller="c"), queries_of) is None
    assert queue.num_left == 5


def test_a_call_that_has_begun_does_not_make_room() -> None:
    queue = queue_of(waiting_call(20, caller="a"))
    take(queue, 4)
    assert queue.withdraw_for(waiting_call(1, caller="b"), queries_of) is None


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),  # caller
        st.integers(1, 2),  # k, and so the group
        st.integers(1, 40),  # queries
        st.integers(0, 2),  # batches taken before the next arrival
    ),
    max_size=30,
)


@given(arrivals=ARRIVALS, room=st.integers(1, 20))
def test_everything_is_served_once_in_its_callers_order(
    arrivals: list[tuple[str, int, int, int]], room: int
) -> None:
    queue = FairQueue(everything)
    calls, batches = [], []
    for caller, k, num_queries, num_batches in arrivals:
        calls.append(waiting_call(num_queries, caller=caller, k=k))
        queue.put(calls[-1])
        batches += [take(queue, room) for _ in range(num_batches)]
    batches += take_all(queue, room)

    served: dict[tuple[str, int], list[tuple[Call, int]]] = defaultdict(list)
    for batch in batches:
        assert sum(stop - start for _, start, stop in batch) <= room
        assert len({call.group for call, _, _ in batch}) <= 1
        for call, start, stop in batch:
            served[call.caller, call.k] += [(call, i) for i in range(start, stop)]
    expected: dict[tuple[str, int], list[tuple[Call, int]]] = defaultdict(list)
    for call in calls:
        expected[call.caller, call.k] += [(call, i) for i in range(len(call.queries))]
    assert served == expected
    assert (queue.num_left, queue.num_bytes) == (0, 0)


@given(
    num_bulk=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    room=st.integers(8, 64),
)
def test_a_single_query_waits_for_no_more_than_the_batch_under_way(
    num_bulk: int, sizes: list[int], room: int
) -> None:
    queue = FairQueue(everything)
    names = [f"bulk{i}" for i in range(num_bulk)]
    for number, size in zip(count(), sizes):
        queue.put(waiting_call(size, caller=names[number % num_bulk]))
    while queue.num_left:
        take(queue, room)
        single = waiting_call(caller="single")
        queue.put(single)
        assert (single, 0, 1) in take(queue, room)


@settings(deadline=None)
@given(
    bulk=st.integers(1, 20),
    same_group=st.booleans(),
    room=st.integers(1, 16),
)
def test_nobody_is_starved_by_callers_who_come_new_all_the_time(
    bulk: int, same_group: bool, room: int
) -> None:
    call = waiting_call(bulk, caller="bulk", k=1)
    queue = queue_of(call)
    since = 0
    for number in count():
        queue.put(waiting_call(caller=f"{number}", k=1 if same_group else 2))
        left = call.num_left
        take(queue, room)
        since = since + 1 if call.num_left == left else 0
        if not call.num_left:
            break
        # As many come as can be served, and so more and more wait while the bulk has its share.
        assert since <= (bulk + 3) ** 2
