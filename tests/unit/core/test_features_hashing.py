"""Hashes of short strings and the table that knows them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from motherlode.core.features.hashing import (
    HashTable,
    code_points,
    hash_strings,
    window_hashes,
)


def test_a_window_has_the_hash_of_its_string() -> None:
    text = "東京 tokyo"
    windows = dict(enumerate(window_hashes(code_points(text + "    "), 4), start=1))

    for size, hashes in windows.items():
        strings = [text[i : i + size] for i in range(len(text) - size + 1)]
        assert hashes[: len(strings)].tolist() == hash_strings(strings).tolist()


def test_strings_that_differ_by_null_characters_or_order_have_other_hashes() -> None:
    strings = ["", "\0", "\0\0", "a", "a\0", "\0a", "ab", "ba", " a", "a "]

    assert len(set(hash_strings(strings).tolist())) == len(strings)


def test_all_strings_of_three_letters_have_distinct_hashes() -> None:
    letters = "abcdefghijklmnopqrstuvwxyzабвгдежз東京"
    strings = ["".join(s) for n in (1, 2, 3) for s in itertools.product(letters, repeat=n)]

    assert len(np.unique(hash_strings(strings))) == len(strings)


@pytest.mark.parametrize("size", [0, 1, 2, 100, 5000])
def test_a_table_finds_its_own_hashes_and_no_others(size: int) -> None:
    hashes = np.random.default_rng(size).integers(0, 2**64, 2 * size + 1, np.uint64)
    table = HashTable(hashes[:size])

    assert table.find(hashes[:size]).tolist() == list(range(size))
    assert table.find_each(hashes.tolist()) == list(range(size))
    assert table.find(hashes[size:]).tolist() == [-1] * (size + 1)


def test_hashes_that_share_a_slot_are_all_found() -> None:
    hashes = np.arange(50, dtype=np.uint64)  # all belong to the first slot, 0 among them
    table = HashTable(hashes)

    assert table.find(hashes).tolist() == list(range(50))
    assert table.find_each(range(51)) == list(range(50))
    assert table.find(np.arange(50, 60, dtype=np.uint64)).tolist() == [-1] * 10


def test_hashes_at_the_end_of_the_table_go_on_at_its_beginning() -> None:
    hashes = np.uint64(2**64 - 1) - np.arange(20, dtype=np.uint64)

    table = HashTable(hashes)
    assert table.find(hashes).tolist() == list(range(20))
    assert table.find_each(hashes.tolist()) == list(range(20))


def test_a_hash_of_zero_is_unknown_to_a_table_without_it() -> None:
    assert HashTable(np.array([5], np.uint64)).find(np.zeros(1, np.uint64)).tolist() == [-1]
