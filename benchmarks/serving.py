"""Latency of one caller and throughput of 64, over gRPC, from the machine that serves.

Usage: python benchmarks/serving.py REPOSITORY MODEL

One caller: the blocking client, one text after another. Many callers: nghttp2's `h2load`, which
posts ready-made gRPC frames and leaves most of the machine to the server; the server's own count of
answered requests shows that each was answered. Everything runs three times: other work on the
machine can only make a run worse, so the best one counts.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import print_result
from served import Served, label_texts, serve

from motherlode.clients import Client
from motherlode.v1 import retrieval_pb2 as pb

K = 10
REPEATS = 3
NUM_SINGLE = 2000
NUM_MANY = 20_000
# Calls at a time, as connections x streams of each.
LOADS = ((64, 1), (4, 16))
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
        if shutil.which("h2load") is None:
            print("\nh2load is not installed (Debian: nghttp2-client), so nothing on many callers")
            return
        rows = [many_callers(served, texts[0], *load) for load in LOADS]
        columns = ["connections", "streams", "calls/s", "mean ms", "max ms", "answered"]
        print_result(f"64 concurrent calls, k = {K}", columns, rows)


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


def many_callers(served: Served, text: str, connections: int, streams: int) -> list[object]:
    """Calls per second of the best run."""
    before = served.answered()
    with tempfile.NamedTemporaryFile() as frame:
        frame.write(grpc_frame(pb.TopKRequest(text=pb.TextBatch(texts=[text]), k=K)))
        frame.flush()
        runs = [h2load(served, frame.name, connections, streams) for _ in range(REPEATS)]
    answered = served.answered() - before
    share = f"{answered / (REPEATS * NUM_MANY):.1%}"
    return [connections, streams, *max(runs), share]


def grpc_frame(message: pb.TopKRequest) -> bytes:
    """A message as a gRPC call's body: not compressed, its length, itself."""
    body = message.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


def h2load(served: Served, frame: str, connections: int, streams: int) -> tuple[int, str, str]:
    """Calls per second, mean and longest duration of one run."""
    command = ["h2load", "-n", str(NUM_MANY), "-c", str(connections), "-m", str(streams)]
    command += ["-d", frame, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command.append(f"http://{served.address}/{METHOD}")
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", output)
    times = re.search(r"time for request:\s+\S+\s+(\S+)\s+(\S+)", output)
    assert rate is not None, output
    assert times is not None, output
    return round(float(rate[1])), times[2].removesuffix("ms"), times[1].removesuffix("ms")


if __name__ == "__main__":
    main()
