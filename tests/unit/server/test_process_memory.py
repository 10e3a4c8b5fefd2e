from __future__ import annotations

import sys
from pathlib import Path

import pytest

from motherlode.core.memory import limit_bytes
from motherlode.server.process_memory import anonymous_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_this_process_takes_some_of_the_memory_that_it_may_have() -> None:
    assert 2**20 < anonymous_bytes() < limit_bytes()


def test_memory_is_read_in_bytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nRssAnon:\t     512 kB\nRssFile:\t 9 kB\n", "ascii")
    assert anonymous_bytes(status) == 512 * 1024


@pytest.mark.parametrize("text", [None, "Name:\tpython\n"])
def test_a_system_that_does_not_tell_gives_zero(tmp_path: Path, text: str | None) -> None:
    status = tmp_path / "status"
    if text is not None:
        status.write_text(text, "ascii")
    assert anonymous_bytes(status) == 0
