from __future__ import annotations

import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from motherlode.server.priority import lower_priority

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="priorities are of whole processes elsewhere"
)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def slice_ns() -> int:
    """How long this thread may compute without a pause."""
    lines = Path(f"/proc/self/task/{threading.get_native_id()}/sched").read_text(encoding="ascii")
    return int(re.findall(r"^se\.slice +: +(\d+)$", lines, re.MULTILINE)[0])


def has_slices() -> bool:
    """Whether the kernel lets threads have slices of their own, and tells them."""
    version = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    told = Path("/proc/self/sched")
    return version >= (6, 12) and told.exists() and "se.slice" in told.read_text(encoding="ascii")


@pytest.mark.parametrize("machine", [platform.machine(), "a machine of tomorrow"])
def test_it_is_of_this_thread_alone(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    before, seen = priority(), []

    def work() -> None:
        lower_priority()
        seen.append(priority())

    in_thread(work)
    assert seen == [min(before + 10, 19)]
    assert priority() == before


def test_others_that_wake_up_need_not_wait_for_its_slice() -> None:
    if not has_slices():
        pytest.skip("this kernel has no slices of single threads, or does not tell them")
    before, seen = slice_ns(), []

    def work() -> None:
        lower_priority()
        seen.append(slice_ns())

    in_thread(work)
    assert seen == [10_000_000]
    assert slice_ns() == before
