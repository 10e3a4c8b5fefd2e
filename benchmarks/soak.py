"""A day of mixed traffic in ten minutes: does memory grow, or the number of descriptors?

Usage: python benchmarks/soak.py [--seconds 600]

An hour of the day takes a 24th of the time; there are few callers at night and many by day. They
ask single texts, many at once, streams, by KServe's protocol, with filters; with wrong input, with
deadlines too short to be kept, and some give up half-way. A new version is published every two
hours. Growth is the slope of a straight line through the memory after the first quarter, in which
caches fill. The program fails if memory grows by more than 5 % over the rest of the day, if
descriptors are left over, or if a call ends with a status that it should not.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from faults import publish
from machine import print_result
from served import Served, serve

from motherlode.core.repository import Repository
from motherlode.inference import open_inference_pb2 as inference_pb
from motherlode.inference import open_inference_pb2_grpc
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc

# The model is the tests' own, made in a moment.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.support.bundles import publish_tiny

MODEL, NUM_LABELS = "tiny", 2000
HOURS, HOURS_A_VERSION = 24, 2
FEWEST, MOST_CALLERS = 1, 8
TIMEOUT_S = 20.0
WARM_UP_SHARE = 0.25
LARGEST_GROWTH = 0.05
SPARE_DESCRIPTORS = 3
# Statuses that this traffic asks for.
EXPECTED = {"OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "QUEUE_DEADLINE", "CANCELLED"}


class Caller:
    """One who asks now this, now that."""

    def __init__(self, address: str, seed: int, statuses: Counter[str]) -> None:
        self._random = random.Random(seed)
        self._statuses = statuses
        # Channels of one process would share a connection, and its callers one turn in the queue.
        self._channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._retrieval: Any = retrieval_pb2_grpc.RetrievalServiceStub(self._channel)
        self._inference: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def run(self, is_awake: Callable[[], bool]) -> None:
        """Asks until cancelled, while awake."""
        kinds: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            self._single,
            self._bulk,
            self._stream,
            self._tensors,
            self._filtered,
            self._wrong,
            self._too_late,
            self._given_up,
        ]
        weights = [40, 10, 5, 15, 10, 8, 6, 6]
        try:
            while True:
                if not is_awake():
                    await asyncio.sleep(0.1)
                    continue
                [kind] = self._random.choices(kinds, weights)
                self._statuses[await self._status_of(kind())] += 1
        finally:
            await self._channel.close()

    async def _status_of(self, call: Coroutine[Any, Any, Any]) -> str:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            # Refused as what cannot be answered in time, which is as good as too late.
            is_doomed = "the deadline is" in (error.details() or "")
            return "QUEUE_DEADLINE" if is_doomed else error.code().name
        return "OK"

    def _request(self, number: int = 1, **fields: Any) -> pb.TopKRequest:
        texts = [f"topic{self._random.randrange(NUM_LABELS)} filler" for _ in range(number)]
        return pb.TopKRequest(text=pb.TextBatch(texts=texts), **({"k": 10} | fields))

    async def _single(self) -> None:
        await self._retrieval.TopK(self._request(), timeout=TIMEOUT_S)

    async def _bulk(self) -> None:
        await self._retrieval.TopK(self._request(256), timeout=TIMEOUT_S)

    async def _stream(self) -> None:
        async def requests() -> AsyncIterator[pb.TopKStreamRequest]:
            for _ in range(10):
                yield pb.TopKStreamRequest(request=self._request(8))

        async for _ in self._retrieval.TopKStream(requests(), timeout=TIMEOUT_S):
            pass

    async def _tensors(self) -> None:
        request = inference_pb.ModelInferRequest(model_name=MODEL)
        texts = [b"topic%d" % self._random.randrange(NUM_LABELS)]
        contents = {"bytes_contents": texts}
        request.inputs.add(name="text", datatype="BYTES", shape=[1], contents=contents)
        await self._inference.ModelInfer(request, timeout=TIMEOUT_S)

    async def _filtered(self) -> None:
        keys = [f"label{self._random.randrange(NUM_LABELS)}" for _ in range(50)]
        request = self._request(filter=pb.LabelFilter(allow=keys), label_fields=[1, 2])
        await self._retrieval.TopK(request, timeout=TIMEOUT_S)

    async def _wrong(self) -> None:
        await self._retrieval.TopK(self._request(k=10**6), timeout=TIMEOUT_S)

    async def _too_late(self) -> None:
        await self._retrieval.TopK(self._request(64), timeout=0.001)

    async def _given_up(self) -> None:
        call = self._retrieval.TopK(self._request(64), timeout=TIMEOUT_S)
        await asyncio.sleep(self._random.random() * 0.005)
        call.cancel()
        # Awaited, it would look as if this caller himself had been cancelled.
        self._statuses[(await call.code()).name] += 1


class Day:
    """The hour of a day that passes quickly."""

    def __init__(self, seconds: float) -> None:
        self._started, self._seconds = time.monotonic(), seconds

    @property
    def hour(self) -> float:
        """Hours since midnight."""
        return (time.monotonic() - self._started) / self._seconds * HOURS

    @property
    def num_callers(self) -> int:
        """Most at noon, fewest at midnight."""
        share = (1 - math.cos(2 * math.pi * self.hour / HOURS)) / 2
        return round(FEWEST + share * (MOST_CALLERS - FEWEST))


def main() -> None:
    """Let the day pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        publish_tiny(repository, MODEL, num_labels=NUM_LABELS, index_kind="hnsw")
        with serve(repository, MODEL, "reload_interval_s=0.5") as served:
            is_good = asyncio.run(soak(served, repository, options.seconds))
    sys.exit(0 if is_good else 1)


async def soak(served: Served, repository: Path, seconds: float) -> bool:
    """Asks, publishes and measures; gives whether all was as it should be."""
    statuses: Counter[str] = Counter()
    num_before = num_descriptors(served)
    day = Day(seconds)
    callers = [
        asyncio.create_task(
            Caller(served.address, i, statuses).run(lambda i=i: i < day.num_callers)  # type: ignore[misc]
        )
        for i in range(MOST_CALLERS)
    ]
    samples = await pass_day(day, served, repository)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    # The server learns of closed connections a moment later.
    await asyncio.sleep(2)
    return report(np.array(samples), (num_before, num_descriptors(served)), statuses)


async def pass_day(day: Day, served: Served, repository: Path) -> list[tuple[float, float]]:
    """Publishes now and then; gives hours with the memory in MiB."""
    bundle = Repository(repository).path_of(MODEL, 1)
    samples, newest = [], 1
    while (hour := day.hour) < HOURS:
        samples.append((hour, resident_mib(served)))
        if hour // HOURS_A_VERSION >= newest:
            newest += 1
            publish(bundle, Repository(repository).path_of(MODEL, newest))
        await asyncio.sleep(0.25)
    return samples


def report(samples_N2: np.ndarray, descriptors: tuple[int, int], statuses: Counter[str]) -> bool:
    """Prints the table; gives whether all was as it should be."""
    settled = samples_N2[samples_N2[:, 0] > WARM_UP_SHARE * HOURS]
    (slope, _), covariance = np.polyfit(*settled.T, 1, cov=True)
    num_hours = HOURS * (1 - WARM_UP_SHARE)
    mean = settled[:, 1].mean()
    rows: list[list[object]] = [
        ["calls", sum(statuses.values())],
        ["statuses", ", ".join(f"{n} {name}" for name, n in statuses.most_common())],
        ["memory, mean MiB", round(float(mean), 1)],
        ["slope, MiB an hour", f"{slope:.3f} ± {2 * covariance[0, 0] ** 0.5:.3f}"],
        ["growth after warm-up", f"{slope * num_hours / mean:.1%}"],
        ["descriptors before, after", f"{descriptors[0]}, {descriptors[1]}"],
    ]
    print_result("a day of mixed traffic", ["", "seen"], rows)
    is_good = {
        "memory": slope * num_hours < LARGEST_GROWTH * mean,
        "descriptors": descriptors[1] <= descriptors[0] + SPARE_DESCRIPTORS,
        "statuses": set(statuses) <= EXPECTED,
    }
    for name, good in is_good.items():
        print(f"{name}: {'as it should be' if good else 'NOT as it should be'}")
    return all(is_good.values())


def resident_mib(served: Served) -> float:
    """Resident memory of the server."""
    pages = int(Path(f"/proc/{served.pid}/statm").read_text("utf-8").split()[1])
    return pages * 4096 / 2**20


def num_descriptors(served: Served) -> int:
    """Open files and sockets of the server."""
    return len(list(Path(f"/proc/{served.pid}/fd").iterdir()))


if __name__ == "__main__":
    main()
