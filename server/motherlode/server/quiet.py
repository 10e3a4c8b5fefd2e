"""A thread for slow work that must not be felt by calls under way."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, final

import torch

from motherlode.core.index import limit_index_threads
from motherlode.server.priority import lower_priority

_Result = TypeVar("_Result")

# For which a thread may keep Python's lock from others, while this work is done and otherwise.
_TURN_S = 0.0001
_USUAL_TURN_S = sys.getswitchinterval()


@final
class QuietThread:
    """One thread of low priority, that computes with no threads but itself."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_give_way)
        self._futures: set[Future[Any]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether work is under way."""
        return any(future.running() for future in self._futures)

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What the work gives, once all work handed in before is done."""
        future = self._executor.submit(_in_short_turns, work)
        self._futures.add(future)
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._futures = {one for one in self._futures if not one.done()}

    def close(self) -> None:
        """Ends the thread after the work under way, if there is some; does not wait for that."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _in_short_turns(work: Callable[[], _Result]) -> _Result:
    """Does work of which others that want Python's lock do not wait for long.

    A call takes the lock several times on its way, and would wait for a whole turn of this thread
    each time. Turns are those of all threads, but only who computes in Python takes whole ones.
    """
    sys.setswitchinterval(_TURN_S)
    try:
        return work()
    finally:
        sys.setswitchinterval(_USUAL_TURN_S)


def _give_way() -> None:
    lower_priority()
    limit_index_threads(1)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # It also became the number of threads that have not computed yet, such as the engine.
    restoring = threading.Thread(target=torch.set_num_threads, args=(num_threads,))
    restoring.start()
    restoring.join()
