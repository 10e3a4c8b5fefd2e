"""What becomes of versions that are out: they stay whole until their last call, then leave."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import final

from motherlode.server.quiet import QuietThread
from motherlode.server.slot import Catalog, ServedVersion

logger = logging.getLogger(__name__)


@final
class Retirement:
    """Lets versions go."""

    def __init__(self, catalog: Catalog, thread: QuietThread) -> None:
        self._catalog = catalog
        self._thread = thread
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[ServedVersion] = set()

    def leaving(self, model: str) -> list[ServedVersion]:
        """Versions of a model that wait for their last call."""
        return [served for served in self._leaving if served.model == model]

    def begin(self, versions: Iterable[ServedVersion]) -> None:
        """Lets versions go that no new call can find any more."""
        for served in versions:
            task = asyncio.create_task(self.let_go(served))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def let_go(self, served: ServedVersion) -> None:
        """Returns when a version is gone and its memory is given back."""
        self._leaving.add(served)
        try:
            await served.wait_idle()
        finally:
            self._leaving.discard(served)
        loaded = {(s.model, s.version) for slot in self._catalog for s in slot.loaded}
        if (served.model, served.version) not in loaded:
            served.meters.remove()
        logger.info("%s@%d is gone", served.model, served.version)
        # To free it takes a while, for which the event loop would keep calls waiting.
        last_reference = [served]
        del served
        await asyncio.to_thread(last_reference.clear)
        await self._thread.run(_return_memory)

    async def wait(self) -> None:
        """Returns when all that were let go are gone."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _return_memory() -> None:
    """Gives freed memory back to the system, which glibc does not do by itself."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
