"""A server whose exact index is on a GPU, beside the same server on the CPU.

Usage: python benchmarks/gpu_serving.py [--labels 1000000] [--seconds 5]

A model of made-up embeddings is served twice, with `gpu = require` and `gpu = never`, and asked in
closed loops over gRPC from one process of its own: single queries, and 64 queries a call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import clustered
from machine import print_result
from served import serve

from motherlode.clients import query_batch
from motherlode.clients.load import ClosedLoop, LoadReport, MotherlodeProtocol, run_load
from motherlode.clients.question import Question
from motherlode.core.index import ExactConfig

K = 10
# Callers at a time, and the queries of each call.
LOADS = ((1, 1), (64, 1), (8, 64))


def main() -> None:
    """Ask both servers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        clustered.publish(Path(folder), num_labels=options.labels, config=ExactConfig())
        for gpu in ("require", "never"):
            settings = (f"gpu={gpu}", f"num_threads={os.cpu_count()}")
            with serve(Path(folder), clustered.MODEL, *settings) as server:
                for callers, batch in LOADS:
                    report = asyncio.run(ask(server.address, callers, batch, options))
                    rows.append([gpu, callers, batch, *figures(report)])
    columns = ["gpu", "callers", "queries a call", "queries/s", "p50 ms", "p99 ms", "failed"]
    print_result(f"exact index of {options.labels:,} labels over gRPC", columns, rows)


async def ask(address: str, callers: int, batch: int, options: argparse.Namespace) -> LoadReport:
    """A short load that does not count, then the one that does."""
    queries = query_batch(embeddings=clustered.made_up_queries(1024, options.labels))
    question = Question(k=K, label_fields=())
    protocol = MotherlodeProtocol(
        address, queries, question, queries_per_call=batch, connections=min(callers, 8)
    )
    await protocol.connect()
    try:
        await run_load(protocol, ClosedLoop(callers), duration_s=1.0)
        return await run_load(protocol, ClosedLoop(callers), duration_s=options.seconds)
    finally:
        await protocol.close()


def figures(report: LoadReport) -> list[object]:
    """Queries a second, latencies, calls that failed."""
    latencies = report.statuses["OK"].latencies
    times = [round(1e3 * (latencies.quantile(share) or 0.0), 2) for share in (0.5, 0.99)]
    rate = round(report.achieved_rate * report.queries_per_call)
    return [rate, *times, report.num_calls - report.num_ok]


if __name__ == "__main__":
    main()
