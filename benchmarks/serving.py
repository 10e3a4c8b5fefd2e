"""Latency of one caller and throughput of many, over gRPC, from the machine that serves.

Usage: python benchmarks/serving.py REPOSITORY MODEL

One caller: the blocking client, one text after another. Many callers: `h2load`; the server's own
count of answered requests, warm-up included, shows that they were answered. Everything runs three
times: other work on the machine can only make a run worse, so the best one counts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import h2load
import numpy as np
from machine import print_result
from served import Served, label_texts, serve

from motherlode.clients import Client
from motherlode.v1 import retrieval_pb2 as pb

K = 10
REPEATS = 3
NUM_SINGLE = 2000
LOAD_S = 4
# Calls at a time.
LOADS = (8, 64)
METHOD = "motherlode.v1.RetrievalService/TopK"


def main() -> None:
    """Ask the newest version of a model."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    repository, model = Path(sys.argv[1]), sys.argv[2]
    with serve(repository, model) as served:
        texts = label_texts(repository, model, served.version, NUM_SINGLE)
        columns = ["p50 ms", "p90 ms", "p99 ms", "calls/s"]
        print_result(f"one blocking client, k = {K}", columns, [one_caller(served, texts)])
        h2load.require()
        rows = [many_callers(served, texts[0], in_flight) for in_flight in LOADS]
        columns = ["in flight", "calls/s", "p50 ms", "p99 ms", "answered/s over all runs"]
        print_result(f"many callers, k = {K}", columns, rows)


def one_caller(served: Served, texts: list[str]) -> list[object]:
    """Latency percentiles and calls per second of the best run."""
    best: list[object] = []
    with Client(served.address) as client:
        for _ in range(REPEATS):
            durations = []
            for text in texts:
                started = time.perf_counter()
                client.top_k([text], K)
                durations.append(time.perf_counter() - started)
            p50, p90, p99 = np.percentile(durations, [50, 90, 99]) * 1e3
            row = [round(p50, 2), round(p90, 2), round(p99, 2), round(len(texts) / sum(durations))]
            best = min(best, row) if best else row
    return best


def many_callers(served: Served, text: str, in_flight: int) -> list[object]:
    """Calls per second and latency of the best run."""
    request = pb.TopKRequest(text=pb.TextBatch(texts=[text]), k=K)
    before, started = served.answered(), time.perf_counter()
    runs = [h2load.post(served.address, METHOD, request, in_flight, LOAD_S) for _ in range(REPEATS)]
    rate = (served.answered() - before) / (time.perf_counter() - started)
    best = max(runs, key=lambda load: load.rate)
    return [in_flight, round(best.rate), round(best.p50_ms, 2), round(best.p99_ms, 2), round(rate)]


if __name__ == "__main__":
    main()
