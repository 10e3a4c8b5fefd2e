"""Any bytes at the readers of requests and at a connection, in this process, as long as it is told.

Usage: python benchmarks/fuzz.py [--seconds 600]

What can be read is also searched and written as an answer; bytes for a connection come as from a
socket, in pieces, and its methods run. Errors that the server has a status for
are right; any other ends the run with a traceback and the bytes. With `atheris` (`pip install
atheris`) the bytes are led by the code that they reach; without it, by hypothesis. All methods over
real sockets, but not for as long: tests/e2e/test_hostile_requests.py.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
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
    from motherlode.server.http2 import frames
    from motherlode.server.http2.frames import ConnectionFaultError, Kind, frame
    from motherlode.server.http2.headers import HeadReader, block_of
    from motherlode.server.http2.messages import MessageReader, prefixed
    from motherlode.server.metrics import Meters
    from motherlode.server.open_inference.wire import MODEL_INFER
    from motherlode.server.slot import Catalog, ServedVersion
    from motherlode.server.wire import TOP_K
    from motherlode.v1 import retrieval_pb2 as pb
    from tests.support.bundles import publish_dense, publish_tiny
    from tests.support.hostile import METHODS, requests_of
    from tests.support.http2 import Dialogue

DIALECTS: tuple[tuple[Any, Any], ...] = (
    (pb.TopKRequest, TOP_K),
    (inference_pb.ModelInferRequest, MODEL_INFER),
)
EXAMPLES_A_TIME = 2000
CALL = block_of(
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/test/Echo"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
    ]
)


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    # Methods that fail on what they get say so there.
    logging.disable(logging.CRITICAL)
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
            lambda data: read(data[0] % 4, data[1:]) if data else None,
        )
        atheris.Fuzz()


def reader(repository: Path) -> Callable[[int, bytes], None]:
    """Reads bytes in one of the two protocols and answers what they ask, or below the protocols."""
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
        if which >= len(DIALECTS):
            below = (at_connection, at_parts)[which - len(DIALECTS)]
            loop.run_until_complete(below(data))
            return
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


async def at_connection(data: bytes) -> None:
    """Bytes of a caller who has said hello, in pieces; the first byte says how large they are."""
    dialogue = Dialogue()
    size = 1 + data[0] if data else 1
    for start in range(1, len(data), size):
        dialogue.say(data[start : start + size])
        await asyncio.sleep(0)
    await dialogue.settle()
    connection = dialogue.connection
    if not (dialogue.transport.is_closed or connection.is_under_way):
        raise AssertionError("the connection neither lives nor has ended")
    connection.connection_lost(None)
    await dialogue.settle()
    left = connection.num_calls, connection.num_running, connection.outflow.num_unsent
    if any(left):
        raise AssertionError(f"calls, methods and bytes left: {left}")


async def at_parts(data: bytes) -> None:
    """Bytes as header blocks, which come again and again, and as messages."""
    size = 1 + data[0] if data else 1
    blocks = [data[start : start + size] for start in range(1, len(data), size)]
    remembers, forgets = HeadReader(2048), HeadReader(2048)
    with suppress(ConnectionFaultError):
        for block in blocks * 3:
            vars(forgets)["_known"].clear()
            if repr(remembers.read(block)) != repr(forgets.read(block)):
                raise AssertionError("the same headers are not the same the second time")
    messages = MessageReader("gzip", 4096)
    with suppress(MotherlodeError):
        for message in messages.feed(data[1:]):
            messages.unpack(message)
        messages.finish()


def seeds_below() -> list[bytes]:
    """What a caller sends whose calls are answered, and its parts."""
    head = frames.head(1, CALL, is_last=False)
    stream = frames.head(3, CALL.replace(b"\x0a/test/Echo", b"\x0e/test/EchoEach"), is_last=False)
    message = prefixed(b"hello")
    last = frame(Kind.DATA, frames.END_STREAM, 1, message)
    padded = frame(Kind.DATA, frames.PADDED, 3, b"\x02" + message + b"  ")
    end = frame(Kind.HEADERS, frames.END_HEADERS | frames.END_STREAM, 3, CALL)
    reset = frame(Kind.RST_STREAM, 0, 3, bytes(4))
    others = (
        frame(Kind.PING, 0, 0, bytes(8))
        + frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 3})
        + frames.window_update(0, 9)
    )
    talks = (head + last, head + others + last, stream + padded + end, stream + padded + reset)
    parts = (CALL, message, b"\x40\x01a\x01b\xbe\x3f\x09")
    return [b"\x02\xff" + one for one in talks] + [b"\x03\xff" + one for one in parts]


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
    ] + seeds_below()


def by_hypothesis(read: Callable[[int, bytes], None], seconds: int) -> None:
    """Fuzz without coverage, by the tests' own hostile requests."""
    method_of = {method.input_type.name: method for method in METHODS}
    pieces = st.sampled_from([one[1:] for one in seeds_below()]) | st.binary(max_size=30)
    below = st.tuples(st.sampled_from([2, 3]), st.lists(pieces, max_size=4).map(b"".join))
    requests = st.one_of(
        st.tuples(st.just(which), requests_of(method_of[message.DESCRIPTOR.name]))
        for which, (message, _) in enumerate(DIALECTS)
    )
    anything = st.one_of(requests, below)
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
