"""Servers for tests: one in this process, one in a process of its own, both on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, final

import grpc

from motherlode.core.queries import Queries
from motherlode.core.query_path import StageTimes
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.server import batcher
from motherlode.server.app import Readiness, Server
from motherlode.server.config import load_config
from motherlode.server.slot import ServedVersion
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc

ANY_PORT = "127.0.0.1:0"
TIMEOUT_S = 60.0


def text_request(*texts: str, k: int = 3, **fields: Any) -> pb.TopKRequest:
    """A request with texts; `fields` are more fields of TopKRequest."""
    return pb.TopKRequest(text=pb.TextBatch(texts=texts), k=k, **fields)


@final
class RunningServer:
    """A server in this process, and a way to ask it.

    Attributes:
        server: The server itself, to look into.
        stub: Asyncio stub of the service.
        channel: The stub's channel.
        address: gRPC address.
    """

    def __init__(self, server: Server, readiness: Readiness, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.readiness = readiness
        self.address = readiness.listen
        self.channel = channel
        self.stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]

    def current(self, model: str = "tiny") -> ServedVersion:
        """What serves a model now."""
        served = self.server.catalog.find(model).current
        assert served is not None
        return served

    async def ask(self, *texts: str, k: int = 3, **fields: Any) -> pb.TopKResponse:
        """The answer to texts."""
        response: pb.TopKResponse = await self.stub.TopK(
            text_request(*texts, k=k, **fields), timeout=TIMEOUT_S
        )
        return response

    async def info(self) -> pb.GetServerInfoResponse:
        """What the server says of itself."""
        response: pb.GetServerInfoResponse = await self.stub.GetServerInfo(
            pb.GetServerInfoRequest(), timeout=TIMEOUT_S
        )
        return response

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of one series of the server's registry; None if there is no such series."""
        return self.server.meters.registry.get_sample_value(f"motherlode_{name}", labels)


@asynccontextmanager
async def running_server(repository: Path, **settings: Any) -> AsyncIterator[RunningServer]:
    """A server in this process that looks at its repository only when told to."""
    defaults = {
        "listen": ANY_PORT,
        "metrics": ANY_PORT,
        "admin": ANY_PORT,
        "reload_interval_s": 3600.0,
        # A slow machine is no reason to refuse what a test asks.
        "max_queue_delay_s": 60.0,
    }
    server = Server(load_config(None, {"repository": repository, **defaults, **settings}))
    try:
        readiness = await server.start()
        async with grpc.aio.insecure_channel(readiness.listen) as channel:
            yield RunningServer(server, readiness, channel)
    finally:
        await server.close()


@final
class Barrier:
    """Stops the engine within a retriever, so that a test decides when a batch goes on.

    Attributes:
        sizes: Queries of each batch that the retriever was asked for since then.
        batches: Their queries.
    """

    def __init__(self, retriever: Retriever) -> None:
        self.sizes: list[int] = []
        self.batches: list[Queries] = []
        self._top_k: Callable[..., TopK] = retriever.top_k
        self._retriever = retriever
        self._entered = threading.Semaphore(0)
        self._released = threading.Event()

    def __enter__(self) -> Self:
        # What waits is to be the engine's thread; the event loop takes quick queries itself.
        self._quick_s = batcher._QUICK_S
        batcher._QUICK_S = 0.0
        vars(self._retriever)["top_k"] = self._wait
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
        batcher._QUICK_S = self._quick_s
        del vars(self._retriever)["top_k"]

    def wait_entered(self) -> None:
        """Returns when one more batch has come; blocks the thread."""
        assert self._entered.acquire(timeout=TIMEOUT_S), "no batch came"

    def release(self) -> None:
        """Lets all batches pass from now on."""
        self._released.set()

    def _wait(self, queries: Queries, k: int, *, times: StageTimes, **options: Any) -> TopK:
        self.sizes.append(len(queries))
        self.batches.append(queries)
        self._entered.release()
        assert self._released.wait(TIMEOUT_S), "the barrier was never released"
        return self._top_k(queries, k, times=times, **options)


@final
class ServerProcess:
    """`motherlode serve` in a process of its own.

    Attributes:
        address: gRPC address.
        metrics: Address of the metrics port.
        admin: Address of the operators' port.
        models: Version by model at the start.
        log: Lines of its standard error so far.
    """

    def __init__(self, process: subprocess.Popen[str], ready_file: Path) -> None:
        self.process = process
        self.log: list[str] = []
        self._wait_ready()
        document = json.loads(ready_file.read_text(encoding="utf-8"))
        self.address: str = document["listen"]
        self.metrics: str = document["metrics"]
        self.admin: str = document["admin"]
        self.models: dict[str, int] = document["models"]
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end and gives the exit status."""
        status = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return status

    def scrape(self) -> str:
        """The page of the metrics port."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=TIMEOUT_S) as page:
            text: str = page.read().decode()
        return text

    def _wait_ready(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if line.startswith("motherlode: serving"):
                return
        raise AssertionError(f"the server did not start:\n{''.join(self.log)}")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)


@contextmanager
def server_process(
    repository: Path, ready_file: Path, flags: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """A server in a process of its own, killed at the end if it still runs.

    Args:
        repository: What it serves.
        ready_file: A path in a temporary folder.
        flags: More flags of `motherlode serve`.
    """
    command = [sys.executable, "-m", "motherlode.cli.main", "serve"]
    command += ["--repository", str(repository), "--ready-file", str(ready_file)]
    command += [
        "--listen",
        ANY_PORT,
        "--metrics",
        ANY_PORT,
        "--admin",
        ANY_PORT,
        "--set",
        "max_queue_delay_s=60",
        *flags,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment())
    assert process.stderr is not None
    # Its log is read to the end by a thread, so the pipe is closed here alone.
    with process.stderr:
        try:
            yield ServerProcess(process, ready_file)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_S)


def _environment() -> dict[str, str]:
    kept = {name: v for name, v in os.environ.items() if not name.startswith("MOTHERLODE_")}
    return kept | {"OMP_NUM_THREADS": "1"}
