"""Load from nghttp2's `h2load`, which posts ready-made gRPC frames.

It leaves most of the machine to the server, and knows nothing of gRPC's statuses: look elsewhere
whether the calls were answered.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Connections that calls in flight are shared out to.
MAX_CONNECTIONS = 8
WARM_UP_S = 1
# Checked by the server, and far from ever passing.
DEADLINE = "grpc-timeout: 20S"


@dataclass(frozen=True)
class Load:
    """What one run has seen.

    Attributes:
        rate: Calls a second.
        p50_ms: Median duration of a call.
        p99_ms: Duration that one call in a hundred exceeds.
    """

    rate: float
    p50_ms: float
    p99_ms: float


def require() -> None:
    """Ends the program where h2load is not installed."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed (Debian: nghttp2-client)")


def grpc_frame(message: Any) -> bytes:
    """A message as a gRPC call's body: not compressed, its length, itself."""
    body = message.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


def post(address: str, method: str, message: Any, in_flight: int, duration_s: int) -> Load:
    """Posts one message over and over.

    Args:
        address: HOST:PORT.
        method: SERVICE/METHOD.
        message: The request.
        in_flight: Calls at a time, a multiple of `MAX_CONNECTIONS` or less than it.
        duration_s: Seconds that are counted, after a warm-up.
    """
    connections = min(in_flight, MAX_CONNECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        frame, log = Path(folder, "frame"), Path(folder, "log")
        frame.write_bytes(grpc_frame(message))
        command = ["h2load", "-D", str(duration_s), "--warm-up-time", str(WARM_UP_S)]
        command += ["-c", str(connections), "-m", str(in_flight // connections)]
        command += ["-d", str(frame), f"--log-file={log}", "-H", DEADLINE]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command.append(f"http://{address}/{method}")
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        _, statuses, microseconds = np.loadtxt(log, dtype=np.int64, ndmin=2).T
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", output)
    assert rate is not None, output
    # Calls that the end cut short have no status.
    p50, p99 = np.percentile(microseconds[statuses == 200], [50, 99]) / 1e3
    return Load(float(rate[1]), float(p50), float(p99))
