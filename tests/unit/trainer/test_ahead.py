"""Results made ahead: in order, some before they are wanted, and none after the use has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from motherlode.trainer.ahead import made_ahead

PATIENCE_S = 30.0


def test_results_come_in_the_order_of_their_arguments() -> None:
    assert list(made_ahead(lambda i: i * i, range(7))) == [i * i for i in range(7)]
    assert list(made_ahead(str, [])) == []


def test_the_next_two_are_made_while_the_first_is_in_use() -> None:
    made = [threading.Event() for _ in range(5)]

    def make(i: int) -> int:
        made[i].set()
        return i

    results = made_ahead(make, range(5))
    assert next(results) == 0
    assert made[1].wait(PATIENCE_S)
    assert made[2].wait(PATIENCE_S)
    assert not made[3].is_set()
    assert list(results) == [1, 2, 3, 4]


def test_what_a_making_raises_comes_in_its_place_and_ends_it() -> None:
    results = made_ahead(lambda i: 1 // (2 - i), range(9))
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_who_stops_early_leaves_no_thread_and_asks_for_no_more() -> None:
    asked = []

    def arguments() -> Iterator[int]:
        for i in range(100):
            asked.append(i)
            yield i

    results = made_ahead(lambda i: i, arguments())
    assert next(results) == 0
    results.close()
    assert asked == [0, 1, 2]
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("motherlode-ahead") for name in names)
