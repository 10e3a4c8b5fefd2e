"""Our server beside NVIDIA's Triton: the same HNSW graph, the same bytes a call, the same load.

Usage: python benchmarks/beside_triton.py --triton PYTHON_ENVIRONMENT [--rounds 3] [--seconds 3]

Triton answers from its Python backend, by FAISS, with dynamic batching and one instance; FAISS has
one thread here and there. Both servers run all the time and are asked in turn, round after round,
so that other work on the machine hits both; medians of the rounds count. Ours checks every value
that it gets, keeps deadlines and counts for Prometheus. It is asked in its own protocol and in
Triton's.

The environment, of Python 3.11: `pip install nvidia-pytriton faiss-cpu 'numpy<2'`; Triton's stub
misreads arrays of NumPy 2. Debian: `libb64-0d` and `libpython3.11`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import clustered
import faiss
import grpc
import h2load
import numpy as np
from machine import print_result
from served import serve

from motherlode.core.retriever import Retriever
from motherlode.inference import open_inference_pb2 as inference_pb
from motherlode.v1 import retrieval_pb2 as pb

K = 10
IN_FLIGHT = (1, 32, 128)
START_S = 60
INFER = "inference.GRPCInferenceService/ModelInfer"
TOP_K = "motherlode.v1.RetrievalService/TopK"
MODEL_CONFIG = f"""
backend: "python"
max_batch_size: 64
input [ {{ name: "embeddings", data_type: TYPE_FP32, dims: [{clustered.WIDTH}] }} ]
output [
  {{ name: "ids", data_type: TYPE_INT64, dims: [{K}] }},
  {{ name: "scores", data_type: TYPE_FP32, dims: [{K}] }}
]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
"""


@dataclass(frozen=True)
class Asked:
    """A server, and how it is asked."""

    name: str
    address: str
    method: str
    message: inference_pb.ModelInferRequest | pb.TopKRequest


def main() -> None:
    """Ask both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triton", type=Path, metavar="PYTHON_ENVIRONMENT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--repository", type=Path, help="kept, to build the index but once")
    options = parser.parse_args()
    h2load.require()
    packages = packages_of(options.triton)
    with tempfile.TemporaryDirectory() as folder:
        repository = options.repository or Path(folder, "repository")
        version = clustered.publish(repository).versions(clustered.MODEL)[-1]
        index = write_index(repository, version, Path(folder, "index.faiss"))
        with (
            serve(repository, clustered.MODEL, "num_threads=1") as ours,
            triton_server(packages, index, Path(folder)) as address,
        ):
            infer = Asked("Triton", address, INFER, infer_request())
            ours_infer = replace(infer, name="Motherlode, KServe v2", address=ours.address)
            ours_top_k = Asked("Motherlode, TopK", ours.address, TOP_K, top_k_request())
            compare([infer, ours_top_k, ours_infer], options.rounds, options.seconds)


def packages_of(environment: Path | None) -> Path:
    """Where the environment's packages lie; ends the program if Triton is not among them."""
    if environment is not None:
        packages = environment / "lib/python3.11/site-packages"
        if (packages / "pytriton/tritonserver").is_dir():
            return packages.absolute()
    sys.exit(
        f"--triton: expected the folder of a virtual environment of Python 3.11 with "
        f"nvidia-pytriton, faiss-cpu and numpy<2, got {environment}"
    )


def write_index(repository: Path, version: int, path: Path) -> Path:
    """The bundle's own graph, with its labels, as FAISS alone would read it."""
    retriever = Retriever.load(clustered.Repository(repository), clustered.MODEL, version)
    faiss.write_index(retriever.path.index._index, str(path))
    read = faiss.read_index(str(path))
    read.hnsw.efSearch = 64
    faiss.write_index(read, str(path))
    return path


def top_k_request() -> pb.TopKRequest:
    """One query."""
    query = clustered.made_up_queries(1)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=query.shape, data=query.tobytes())
    return pb.TopKRequest(embeddings=tensor, k=K)


def infer_request() -> inference_pb.ModelInferRequest:
    """The same query in tensors; both servers give 10 hits where nothing is said of it."""
    query = clustered.made_up_queries(1)
    request = inference_pb.ModelInferRequest(
        model_name=clustered.MODEL, raw_input_contents=[query.tobytes()]
    )
    request.inputs.add(name="embeddings", datatype="FP32", shape=query.shape)
    for name in ("ids", "scores"):
        request.outputs.add(name=name)
    return request


@contextmanager
def triton_server(packages: Path, index: Path, scratch: Path) -> Iterator[str]:
    """Triton with the model, on a free port, stopped at the end."""
    root = packages / "pytriton/tritonserver"
    backend, model = scratch / "backends/python", scratch / "models" / clustered.MODEL
    backend.mkdir(parents=True)
    parts = [*(root / "backends/python").iterdir()]
    # Links, since the libraries that they need are found from where they lie.
    for part in (*parts, root / "python_backend_stubs/3.11/triton_python_backend_stub"):
        (backend / part.name).symlink_to(part)
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(MODEL_CONFIG, "utf-8")
    shutil.copy(Path(__file__).with_name("triton_model.py"), model / "1/model.py")
    address = f"127.0.0.1:{free_port()}"
    command = [root / "bin/tritonserver", "--model-repository", model.parent]
    command += ["--backend-directory", backend.parent, "--grpc-port", address.partition(":")[2]]
    command += ["--grpc-address", "127.0.0.1", "--allow-http", "false", "--allow-metrics", "false"]
    environment = {"TRITON_MODEL_PACKAGES": str(packages), "TRITON_MODEL_INDEX": str(index)}
    log = scratch / "triton.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        wait_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Returns when Triton's model is loaded; ends the program if that takes too long."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer_of(Asked("Triton", address, INFER, infer_request()))
        except grpc.RpcError:
            time.sleep(0.2)
        else:
            return
    sys.exit(f"Triton did not start:\n{log.read_text('utf-8')}")


def answer_of(asked: Asked) -> bytes:
    """The server's answer as it came."""
    with grpc.insecure_channel(asked.address) as channel:
        call = channel.unary_unary(f"/{asked.method}")
        answer: bytes = call(asked.message.SerializeToString(), timeout=20)
    return answer


def compare(servers: list[Asked], rounds: int, seconds: int) -> None:
    """Checks that the answers agree, and prints the table."""
    check_same_ids(servers)
    rows: list[list[object]] = []
    for in_flight in IN_FLIGHT:
        loads: dict[str, list[h2load.Load]] = {asked.name: [] for asked in servers}
        for _ in range(rounds):
            for asked in servers:
                load = h2load.post(asked.address, asked.method, asked.message, in_flight, seconds)
                loads[asked.name].append(load)
        rates = [statistics.median(load.rate for load in loads[a.name]) for a in servers]
        for asked, rate in zip(servers, rates, strict=True):
            p50, p99 = (
                round(statistics.median(getattr(load, name) for load in loads[asked.name]), 2)
                for name in ("p50_ms", "p99_ms")
            )
            rows.append([in_flight, asked.name, round(rate), round(rate / rates[0], 2), p50, p99])
    columns = ["in flight", "server", "calls/s", "times Triton's", "p50 ms", "p99 ms"]
    print_result("beside Triton", columns, rows)


def check_same_ids(servers: list[Asked]) -> None:
    """Ends the program unless all servers find the same labels."""
    found = []
    for asked in servers:
        answer = answer_of(asked)
        if asked.method == TOP_K:
            found.append(list(pb.TopKResponse.FromString(answer).labels))
        else:
            response = inference_pb.ModelInferResponse.FromString(answer)
            found.append(np.frombuffer(response.raw_output_contents[0], "<i8").tolist())
    if any(labels != found[0] for labels in found):
        sys.exit(f"the servers do not find the same labels: {found}")


if __name__ == "__main__":
    main()
