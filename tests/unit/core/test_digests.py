"""Digests of long data: the same as at once, with a turn for others on the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from motherlode.core import digests
from motherlode.core.digests import take_in, take_in_file

SIZES = [0, 1, (1 << 18) - 1, 1 << 18, 3 * (1 << 18) + 5]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    digest = hashlib.sha256()
    take_in_file(digest, path)
    assert digest.digest() == hashlib.sha256(data).digest()


def test_an_array_has_the_digest_of_its_bytes() -> None:
    rows = np.random.default_rng(0).random((1000, 300), np.float32)
    digest = hashlib.blake2b(digest_size=16)
    take_in(digest, rows.data)
    assert digest.digest() == hashlib.blake2b(rows.tobytes(), digest_size=16).digest()


def test_others_have_their_turn_after_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    monkeypatch.setattr(os, "sched_yield", lambda: turns.append(1))
    take_in(hashlib.sha256(), memoryview(bytes(digests._BLOCK_BYTES * 5 + 1)))
    assert len(turns) == 6


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_in_file(hashlib.sha256(), tmp_path / "none")
