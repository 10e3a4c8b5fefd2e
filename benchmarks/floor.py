"""How near the server comes to what its parts allow: an empty gRPC handler, and FAISS alone.

Usage: python benchmarks/floor.py [--rounds 5] [--seconds 2] [--repository FOLDER]

Single queries: calls a second beside those of a handler that returns ready-made bytes, in a
process with the same gRPC, event loop and settings. Batches: queries a second of 64 to a call
beside FAISS called in this process with the same batches, one thread here and there. All are asked
in turn, round after round; medians count. Processor time is the server process's for each call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clustered
import faiss
import grpc
import h2load
import numpy as np
import uvloop
from machine import print_result
from served import serve

from motherlode.core.retriever import Retriever
from motherlode.v1 import retrieval_pb2 as pb

K = 10
TOP_K = "motherlode.v1.RetrievalService/TopK"
IN_FLIGHT = (1, 32, 128)
BATCH = 64
# Calls with a batch that are under way at a time: one runs while the next is read.
BATCHES_IN_FLIGHT = 4
FAISS_S = 2.0


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--repository", type=Path, help="kept, to build the index but once")
    parser.add_argument("--empty", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.empty:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(answer_nothing())
    h2load.require()
    with tempfile.TemporaryDirectory() as folder:
        repository = options.repository or Path(folder, "repository")
        version = clustered.publish(repository).versions(clustered.MODEL)[-1]
        with serve(repository, clustered.MODEL, "num_threads=1") as ours, empty_server() as empty:
            servers = {"empty handler": empty, "Motherlode": (ours.address, ours.pid)}
            calls(servers, options.rounds, options.seconds)
            retriever = Retriever.load(clustered.Repository(repository), clustered.MODEL, version)
            batches(ours.address, retriever, options.rounds, options.seconds)


async def answer_nothing() -> None:
    """A server whose only method returns the same bytes, of a usual answer's size."""
    gc.set_threshold(50_000, 20, 100)
    service, method = TOP_K.split("/")
    answer = bytes(250)

    async def handle(_: bytes, __: Any) -> bytes:
        return answer

    handlers = {method: grpc.unary_unary_rpc_method_handler(handle)}
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_registered_method_handlers(service, handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextmanager
def empty_server() -> Iterator[tuple[str, int]]:
    """Address and process of a server that does nothing."""
    command = [sys.executable, __file__, "--empty"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()


def calls(servers: dict[str, tuple[str, int]], rounds: int, seconds: int) -> None:
    """Prints calls a second and processor time a call."""
    request = top_k_request(1)
    rows: list[list[object]] = []
    for in_flight in IN_FLIGHT:
        seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, (address, pid) in servers.items():
                before = processor_s(pid)
                load = h2load.post(address, TOP_K, request, in_flight, seconds)
                num_calls = load.rate * (seconds + h2load.WARM_UP_S)
                micros = (processor_s(pid) - before) / num_calls * 1e6
                seen[name].append((load.rate, load.p50_ms, load.p99_ms, micros))
        medians = {name: np.median(runs, axis=0) for name, runs in seen.items()}
        floor = next(iter(medians.values()))[0]
        for name, (rate, p50, p99, micros) in medians.items():
            times = [round(p50, 2), round(p99, 2), round(micros)]
            rows.append([in_flight, name, round(rate), f"{rate / floor:.0%}", *times])
    columns = ["in flight", "server", "calls/s", "share", "p50 ms", "p99 ms", "processor us a call"]
    print_result("single queries beside an empty handler", columns, rows)


def batches(address: str, retriever: Retriever, rounds: int, seconds: int) -> None:
    """Prints queries a second in batches, by FAISS alone and over gRPC."""
    faiss.omp_set_num_threads(1)
    graph = retriever.path.index._index
    graph.hnsw.efSearch = 64
    # The very batch that the server is asked for, over and over.
    queries_BD = clustered.made_up_queries(BATCH)
    request = top_k_request(BATCH)
    alone, served = [], []
    for _ in range(rounds):
        alone.append(rate_alone(graph, queries_BD))
        load = h2load.post(address, TOP_K, request, BATCHES_IN_FLIGHT, seconds)
        served.append(load.rate * BATCH)
    floor, ours = statistics.median(alone), statistics.median(served)
    rows: list[list[object]] = [
        ["FAISS in process", round(floor), "100%"],
        ["Motherlode over gRPC", round(ours), f"{ours / floor:.0%}"],
    ]
    print_result(f"{BATCH} queries a call beside FAISS", ["", "queries/s", "share"], rows)


def rate_alone(graph: Any, queries_BD: np.ndarray) -> float:
    """Queries a second of FAISS, batch after batch."""
    num_queries, started = 0, time.perf_counter()
    while (taken_s := time.perf_counter() - started) < FAISS_S:
        graph.search(queries_BD, K)
        num_queries += BATCH
    return num_queries / taken_s


def top_k_request(num_queries: int) -> pb.TopKRequest:
    """So many queries in one request."""
    queries_BD = clustered.made_up_queries(BATCH)[:num_queries]
    tensor = pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT32, shape=queries_BD.shape, data=queries_BD.tobytes()
    )
    return pb.TopKRequest(embeddings=tensor, k=K)


def processor_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
