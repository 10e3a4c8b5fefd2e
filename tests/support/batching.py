"""A batcher before a fake retriever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from motherlode.core.queries import TextQueries
from motherlode.server.batcher import Batcher
from motherlode.server.call import Answer, Call
from motherlode.server.metrics import Meters
from motherlode.server.queue_limits import QueueLimits
from motherlode.server.slot import ServedVersion
from tests.support.fake_retriever import FakeRetriever

ANY_LIMITS = QueueLimits(100, 1000, 1e6, 64)


class Bench:
    """A batcher before a fake retriever."""

    def __init__(self, limits: QueueLimits, *, max_batch_bytes: int = 10**9) -> None:
        self.meters = Meters()
        self.retriever = FakeRetriever()
        self.served = self.serve(self.retriever)
        self.batcher = Batcher(self.meters, limits, max_batch_bytes=max_batch_bytes)

    def serve(self, retriever: FakeRetriever) -> ServedVersion:
        meters = self.meters.version(retriever.model, retriever.version)
        return ServedVersion(retriever.as_retriever, meters)

    def call(self, *texts: str, k: int = 2, **fields: Any) -> Call:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        served = fields.pop("served", self.served)
        queries = fields.pop("queries", TextQueries(texts))
        return Call(served, queries, k, future, **fields)

    def submit(self, *texts: str, **fields: Any) -> asyncio.Future[Answer]:
        return self.batcher.submit(self.call(*texts, **fields))

    def lose(self, call: Call, way: str) -> None:
        """Makes nobody wait for a call any more."""
        if way == "expired":
            call.deadline = 0.0
        else:
            call.future.cancel()

    async def occupy(self) -> asyncio.Future[Answer]:
        """A call that keeps the engine busy until the retriever is released."""
        self.retriever.hold()
        future = self.submit("900")
        await asyncio.to_thread(self.retriever.wait_entered)
        return future

    def value(self, name: str, **labels: str) -> float | None:
        return self.meters.registry.get_sample_value(f"motherlode_{name}", labels)


@asynccontextmanager
async def bench(
    *,
    max_queued: int = 100,
    max_bytes: int = 1000,
    max_delay_s: float = 1e6,
    max_batch: int = 64,
    max_batch_bytes: int = 10**9,
) -> AsyncIterator[Bench]:
    limits = QueueLimits(max_queued, max_bytes, max_delay_s, max_batch)
    made = Bench(limits, max_batch_bytes=max_batch_bytes)
    made.batcher.start()
    try:
        yield made
    finally:
        made.retriever.release()
        made.batcher.stop()


def labels_of(answer: Answer) -> list[list[int]]:
    return [answer.top.row(i)[0].tolist() for i in range(len(answer.top))]
