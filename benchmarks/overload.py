"""Three times more load than a server can take: what it still answers, how fast, and what it says.

Usage: python benchmarks/overload.py REPOSITORY MODEL [--seconds 60] [--turns 3] [--callers 16]
       [--processes 1] [--set NAME=VALUE ...]

In turns, as what the machine gives changes: the capacity, in a closed loop of a server that refuses
nobody; then Poisson arrivals at 0.8 and at 3 times the capacity, from processes of their own.
Ratios are medians of the turns; the overload takes so many seconds in all. Goals: goodput within
10 % of the capacity, p99 of accepted calls under twice its value at 0.8 times, no growth of memory,
every refusal with a reason and a time to retry.
Choose a model of which these processes can make three times as many calls: see "sent late".
"""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from machine import print_result
from served import Served, label_texts, serve

from motherlode.clients import OverloadedError
from motherlode.clients.load import (
    OK,
    Answer,
    ClosedLoop,
    LatencyHistogram,
    LoadReport,
    OpenLoop,
    precise_event_loop,
    run_load,
)
from motherlode.clients.status import error_from_rpc
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc

K = 10
CONCURRENCY = 64
NUM_TEXTS = 2000
TIMEOUT_S = 10.0
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@dataclass(frozen=True)
class Task:
    """The part of a load that one process makes."""

    address: str
    texts: list[str]
    load: OpenLoop | ClosedLoop
    duration_s: float
    num_callers: int


class TypedCalls:
    """Single queries over several connections; a refusal's status says whether it is typed."""

    queries_per_call = 1

    def __init__(self, task: Task) -> None:
        self._task = task
        self._requests = [pb.TopKRequest(text=pb.TextBatch(texts=[t]), k=K) for t in task.texts]
        self._channels: list[grpc.aio.Channel] = []
        self._methods: list[Any] = []

    async def connect(self) -> str:
        """Opens a connection for each caller."""
        for _ in range(self._task.num_callers):
            channel = grpc.aio.insecure_channel(self._task.address, OPTIONS)
            await channel.channel_ready()
            self._channels.append(channel)
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]
            self._methods.append(stub.TopK)
        return self._task.address

    async def call(self, number: int) -> Answer:
        """Makes one call."""
        method = self._methods[number % len(self._methods)]
        try:
            await method(self._requests[number % len(self._requests)], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as rpc_error:
            error = error_from_rpc(rpc_error, target=self._task.address)
            if isinstance(error, OverloadedError) and error.reason and error.retry_after_s:
                return Answer(error.reason)
            return Answer(f"untyped {rpc_error.code().name}", str(error))
        return Answer(OK)

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close()


def main() -> None:
    """Load the newest version of a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()

    def loader(served: Served) -> Loader:
        texts = label_texts(given.repository, given.model, served.version, NUM_TEXTS)
        return Loader(served, texts, given.callers, given.processes)

    patient_settings = [*given.set, "max_queue_delay_s=1e6"]
    with (
        serve(given.repository, given.model, *patient_settings) as patient,
        serve(given.repository, given.model, *given.set) as served,
    ):
        loader(patient).run(ClosedLoop(CONCURRENCY), given.seconds / 10)
        measure(loader(patient), loader(served), given.seconds, given.turns)


@dataclass(frozen=True)
class Loader:
    """Makes load from processes of its own."""

    served: Served
    texts: list[str]
    num_callers: int
    num_processes: int

    def run(self, load: OpenLoop | ClosedLoop, duration_s: float) -> LoadReport:
        """What came of a load, of all processes together."""
        num = self.num_processes
        tasks = [
            Task(
                self.served.address,
                self.texts,
                _share(load, num, part),
                duration_s,
                max(1, self.num_callers // num),
            )
            for part in range(num)
        ]
        with ProcessPoolExecutor(num, mp_context=get_context("spawn")) as pool:
            return _together(list(pool.map(make_load, tasks)))


def _share(load: OpenLoop | ClosedLoop, num: int, part: int) -> OpenLoop | ClosedLoop:
    if isinstance(load, OpenLoop):
        return OpenLoop(load.rate / num, seed=part)
    return ClosedLoop(max(1, load.concurrency // num))


def make_load(task: Task) -> LoadReport:
    """Makes one process's part."""

    async def work() -> LoadReport:
        protocol = TypedCalls(task)
        await protocol.connect()
        try:
            return await run_load(protocol, task.load, duration_s=task.duration_s)
        finally:
            await protocol.close()

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        return runner.run(work())


def _together(reports: list[LoadReport]) -> LoadReport:
    whole = reports[0]
    for report in reports[1:]:
        whole.num_due += report.num_due
        whole.lateness.add(report.lateness)
        whole.elapsed_s = max(whole.elapsed_s, report.elapsed_s)
        for status, part in report.statuses.items():
            if status in whole.statuses:
                whole.statuses[status].latencies.add(part.latencies)
            else:
                whole.statuses[status] = part
    return whole


def measure(patient: Loader, loader: Loader, seconds: float, num_turns: int) -> None:
    """Runs all loads in turns; prints a table and the goals."""
    before = loader.served.memory_mib()
    turns = [_turn(patient, loader, seconds / num_turns) for _ in range(num_turns)]
    after = loader.served.memory_mib()
    goodput = median(over.achieved_rate / closed.achieved_rate for closed, _, over in turns)
    slowdown = median(
        _ms(over.answered, 0.99) / _ms(calm.answered, 0.99) for _, calm, over in turns
    )
    columns = ["", "offered/s", "answered/s", "p50 ms", "p99 ms", "sent late p99 ms", "others"]
    names = f"closed, {CONCURRENCY} at a time", "0.8 x", "3 x"
    rows = [
        _row(f"{name}, turn {number}", report)
        for number, turn in enumerate(turns, 1)
        for name, report in zip(names, turn, strict=True)
    ]
    print_result(f"overload, k = {K}, {loader.num_callers} callers", columns, rows)
    statuses = [status for _, _, over in turns for status in over.statuses.items()]
    untyped = sum(len(s.latencies) for name, s in statuses if "untyped" in name)
    print(f"\ngoodput: {goodput:.1%} of capacity (goal: 90 %)")
    print(f"p99 of accepted calls: {slowdown:.2f} times that at 0.8 x (goal: below 2)")
    print(f"memory: {before} MiB before, {after} MiB after")
    print(f"refusals without reason or time to retry: {untyped} (goal: 0)")


def _turn(
    patient: Loader, loader: Loader, seconds: float
) -> tuple[LoadReport, LoadReport, LoadReport]:
    closed = patient.run(ClosedLoop(CONCURRENCY), seconds / 2)
    capacity = closed.achieved_rate
    calm = loader.run(OpenLoop(0.8 * capacity), seconds / 2)
    return closed, calm, loader.run(OpenLoop(3.0 * capacity), seconds)


def _row(name: str, report: LoadReport) -> list[object]:
    others = {s: len(report.statuses[s].latencies) for s in report.ordered() if s != OK}
    told = ", ".join(f"{number} {status}" for status, number in others.items())
    return [
        name,
        round(report.offered_rate),
        round(report.achieved_rate),
        _ms(report.answered, 0.5),
        _ms(report.answered, 0.99),
        _ms(report.lateness, 0.99),
        told,
    ]


def _ms(latencies: LatencyHistogram, share: float) -> float:
    return round((latencies.quantile(share) or 0.0) * 1e3, 1)


if __name__ == "__main__":
    main()
