from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from motherlode.core.index import ExactConfig, build_index, faiss, set_index_threads
from motherlode.core.index.faiss import max_openmp_threads
from motherlode.server.quiet import QuietThread
from tests.support.embeddings import clustered

pytestmark = pytest.mark.asyncio


@pytest.fixture
def quiet() -> Iterator[QuietThread]:
    thread = QuietThread("quiet")
    yield thread
    thread.close()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are of whole processes elsewhere")
async def test_it_gives_way_to_all_other_threads(quiet: QuietThread) -> None:
    assert await quiet.run(priority) == min(19, priority() + 10)


@pytest.mark.usefixtures("two_threads")
async def test_it_computes_alone_and_others_as_before(quiet: QuietThread) -> None:
    assert await quiet.run(torch.get_num_threads) == 1
    assert torch.get_num_threads() == 2
    fresh: list[int] = []
    other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert fresh == [2]


async def test_it_searches_alone_and_others_as_before(
    quiet: QuietThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "_num_threads", None)
    set_index_threads(2)

    def threads_of_a_search() -> int:
        index.search(queries_BD, 3)
        return max_openmp_threads()

    labels_LD, queries_BD = clustered(100, 8)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    assert await quiet.run(threads_of_a_search) == 1
    assert await asyncio.to_thread(threads_of_a_search) == 2


async def test_work_is_done_in_its_order_and_errors_come_back(quiet: QuietThread) -> None:
    done: list[int] = []
    await asyncio.gather(*(quiet.run(lambda i=i: done.append(i)) for i in range(5)))
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        await quiet.run(lambda: 1 // 0)


async def test_it_is_busy_while_work_is_under_way_even_if_nobody_waits_any_more(
    quiet: QuietThread,
) -> None:
    entered, released = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        released.wait()

    waiting = asyncio.create_task(quiet.run(work))
    await asyncio.to_thread(entered.wait)
    assert quiet.is_busy
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert quiet.is_busy
    released.set()
    await quiet.run(lambda: None)
    assert not quiet.is_busy
