"""One spelling for texts that read the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.features.normalise import normalise

LIMIT = 20_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("San José", "san josé"),
        ("San Jose\u0301", "san josé"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Ｔｏｋｙｏ", "tokyo"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("ﬁnland", "finland"),
        ("\u01f0", "\u01f0"),
        ("a\u00a0b", "a b"),
        ("zero\u200bwidth", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("e\u200d\u0301", "é"),
        ("\ud800", "\ufffd"),
        ("a\udfff\ud800é", "a\ufffd\ufffdé"),
        ("nul\0Ä", "nul\0ä"),
        ("", ""),
    ],
)
def test_spellings_that_read_the_same_become_one(text: str, expected: str) -> None:
    assert normalise(text, LIMIT) == expected


def test_ascii_takes_the_short_way_to_the_same_result() -> None:
    ascii_text = "".join(map(chr, range(128)))

    assert normalise(ascii_text + "é", LIMIT)[:-1] == normalise(ascii_text, LIMIT)


def test_each_character_normalised_twice_is_as_normalised_once() -> None:
    # What lies between is Chinese, which stays as it is, or not assigned.
    codes = [*range(0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200)]
    once = [normalise(chr(code), LIMIT) for code in codes]

    assert [normalise(text, LIMIT) for text in once] == once


@given(st.text(st.characters(), max_size=7))
def test_a_text_normalised_twice_is_as_normalised_once(text: str) -> None:
    once = normalise(text, LIMIT)

    assert normalise(once, LIMIT) == once


@given(st.text(st.characters(), max_size=80))
def test_every_normalised_text_can_be_written_as_utf8(text: str) -> None:
    assert normalise(text, LIMIT).encode().decode() == normalise(text, LIMIT)


def test_a_text_that_normalising_makes_longer_is_cut_again() -> None:
    assert len(normalise("\ufdfa" * 100, 100)) == 100


def test_of_many_combining_marks_in_a_row_thirty_stay() -> None:
    text = "x" + "\u0300\u0316" * 10_000

    assert len(normalise(text, LIMIT)) == 31
