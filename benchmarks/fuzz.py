"""Any bytes at the readers of requests, in this process, for as long as it is told.

Usage: python benchmarks/fuzz.py [--seconds 600]

What can be read is also searched and written as an answer. Errors that the server has a status for
are right; any other ends the run with a traceback and the bytes. With `atheris` (`pip install
atheris`) the bytes are led by the code that they reach; without it, by hypothesis. All methods over
real sockets, but not for as long: tests/e2e/test_hostile_requests.py.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

try:
    import atheris
except ImportError:
    atheris = None

# The bundles and the hostile requests are those of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1]))

with nullcontext() if atheris is None else atheris.instrument_imports(["motherlode.server"]):
    from motherlode.core.errors import MotherlodeError
    from motherlode.core.query_path import StageTimes
    from motherlode.core.repository import Repository
    from motherlode.core.retriever import Retriever
    from motherlode.inference import open_inference_pb2 as inference_pb
    from motherlode.server.call import Answer, Call
    from motherlode.server.config import ServerConfig
    from motherlode.server.metrics import Meters
    from motherlode.server.open_inference.wire import MODEL_INFER
    from motherlode.server.slot import Catalog, ServedVersion
    from motherlode.server.wire import TOP_K
    from motherlode.v1 import retrieval_pb2 as pb
    from tests.support.bundles import publish_dense, publish_tiny
    from tests.support.hostile import METHODS, requests_of

DIALECTS: tuple[tuple[Any, Any], ...] = (
    (pb.TopKRequest, TOP_K),
    (inference_pb.ModelInferRequest, MODEL_INFER),
)
EXAMPLES_A_TIME = 2000


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        read = reader(Path(folder, "repository"))
        if atheris is None:
            by_hypothesis(read, options.seconds)
            return
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for i, data in enumerate(seeds()):
            (corpus / str(i)).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={options.seconds}", "-timeout=10", str(corpus)],
            lambda data: read(data[0] % 2, data[1:]) if data else None,
        )
        atheris.Fuzz()


def reader(repository: Path) -> Callable[[int, bytes], None]:
    """Reads bytes in one of the two protocols, and answers what they ask."""
    publish_tiny(repository)
    publish_dense(repository)
    config = ServerConfig(repository=repository)
    catalog, meters = Catalog(), Meters()
    for model in ("tiny", "dense"):
        retriever = Retriever.load(Repository(repository), model)
        served = ServedVersion(retriever, meters.version(model, retriever.version))
        catalog.open(model).swap(served, num_kept=0)
    loop = asyncio.new_event_loop()

    def read(which: int, data: bytes) -> None:
        message, dialect = DIALECTS[which]
        try:
            request = message.FromString(data)
            served = dialect.choose(request, catalog)
            asked = dialect.read(request, served.retriever, config)
            top = served.retriever.top_k(asked.queries, asked.k, filter=asked.filter)
            call = Call(served, asked.queries, asked.k, loop.create_future(), asked.filter)
            dialect.write(request, call, Answer(top, 0.0, StageTimes()), config)
        except (DecodeError, MotherlodeError):
            return

    return read


def seeds() -> list[bytes]:
    """Requests that are answered, from which to start."""
    top_k = pb.TopKRequest(text=pb.TextBatch(texts=["topic7"]), k=3, model={"name": "tiny"})
    top_k.label_fields.append(pb.LABEL_FIELD_KEY)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 16], data=bytes(64))
    embeddings = pb.TopKRequest(embeddings=tensor, k=3, model={"name": "dense"})
    infer = inference_pb.ModelInferRequest(model_name="tiny", raw_input_contents=[bytes(64)])
    infer.inputs.add(name="embeddings", datatype="FP32", shape=[1, 16])
    texts = inference_pb.ModelInferRequest(model_name="tiny")
    texts.inputs.add(
        name="text", datatype="BYTES", shape=[1], contents={"bytes_contents": [b"topic7"]}
    )
    return [
        bytes([which]) + message.SerializeToString()
        for which, message in ((0, top_k), (0, embeddings), (1, infer), (1, texts))
    ]


def by_hypothesis(read: Callable[[int, bytes], None], seconds: int) -> None:
    """Fuzz without coverage, by the tests' own hostile requests."""
    method_of = {method.input_type.name: method for method in METHODS}
    anything = st.one_of(
        st.tuples(st.just(which), requests_of(method_of[message.DESCRIPTOR.name]))
        for which, (message, _) in enumerate(DIALECTS)
    )
    checks = list(HealthCheck)

    @settings(
        max_examples=EXAMPLES_A_TIME, deadline=None, database=None, suppress_health_check=checks
    )
    @given(anything)
    def fuzz(sent: tuple[int, bytes]) -> None:
        read(*sent)

    deadline, num_requests = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        fuzz()
        num_requests += EXAMPLES_A_TIME
    print(f"{num_requests} requests, none of which failed in another way than it should")


if __name__ == "__main__":
    main()
