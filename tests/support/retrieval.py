"""A server's answers without a server: planted, countable and faulty on demand.

The query `q7`, the sparse query whose first feature is 7 and the vector that starts with 7 all find
label 7 first, then 8, 9, ...; label i has the key `label{i}` and the text `topic{i}`. A text that
names no number counts as `q1`, and `q0` finds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.wrappers_pb2 import Int32Value

from motherlode.clients.errors import ClientError, TooLargeError
from motherlode.clients.steps import Call
from motherlode.v1 import retrieval_pb2 as pb


@dataclass
class FakeRetrieval:
    """Answers requests as a server would.

    Attributes:
        limits: What it says it takes, and refuses more than.
        version: The version that serves.
        loaded: Versions that may be asked for by number; None means all.
        max_answer_bytes: Larger answers are refused, whatever the limits say.
        script: What to do before each answer, first come first served: raise or change something.
        requests: All top-k requests, refused ones too.
    """

    limits: pb.Limits = field(default_factory=pb.Limits)
    version: int = 3
    loaded: set[int] | None = None
    max_answer_bytes: int | None = None
    script: list[Callable[[FakeRetrieval], None]] = field(default_factory=list)
    requests: list[pb.TopKRequest] = field(default_factory=list)
    num_info_calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def top_k(self, request: pb.TopKRequest) -> pb.TopKResponse:
        """The planted answer."""
        with self.lock:
            self.requests.append(request)
            if self.script:
                self.script.pop(0)(self)
            version = request.model.version or self.version
        if self.loaded is not None and version not in self.loaded:
            raise refusal("NotFoundError", f"no version {version}")
        firsts = first_labels(request)
        limit = self.limits.max_queries_per_call
        if limit and len(firsts) > limit:
            raise TooLargeError(f"queries: expected at most {limit}, got {len(firsts)}")
        response = planted_answer(request, firsts, version)
        if self.max_answer_bytes is not None and response.ByteSize() > self.max_answer_bytes:
            raise TooLargeError("Sent message larger than max")
        return response

    def server_info(self) -> pb.GetServerInfoResponse:
        """Limits and one model."""
        self.num_info_calls += 1
        model = pb.ModelInfo(name="tiny", version=self.version, aliases={"stable": self.version})
        return pb.GetServerInfoResponse(server_version="0", limits=self.limits, models=[model])


def refusal(name: str, message: str, **attributes: Any) -> ClientError:
    """A client error by the name of its class."""
    from motherlode.clients import errors

    error: ClientError = getattr(errors, name)(message, **attributes)
    return error


def fail(error: Exception) -> Callable[[FakeRetrieval], None]:
    """A step of a script: raise this."""

    def step(_: FakeRetrieval) -> None:
        raise error

    return step


def swap_to(version: int, *, retire: bool = False) -> Callable[[FakeRetrieval], None]:
    """A step of a script: serve another version, and keep no other if `retire`."""

    def step(fake: FakeRetrieval) -> None:
        fake.version = version
        fake.loaded = {version} if retire else fake.loaded

    return step


def proceed(_: FakeRetrieval) -> None:
    """A step of a script: nothing special."""


def first_labels(request: pb.TopKRequest) -> list[int]:
    """The planted first label of each query."""
    match request.WhichOneof("queries"):
        case "text":
            return [_first_of(text) for text in request.text.texts]
        case "sparse":
            indptr = np.frombuffer(request.sparse.indptr, "<i8")
            indices = np.frombuffer(request.sparse.indices, "<i8")
            return [int(indices[start]) for start in indptr[:-1]]
        case "features" | "embeddings" as name:
            tensor = getattr(request, name)
            dtype = "<f4" if tensor.dtype == pb.DATA_TYPE_FLOAT32 else "<f2"
            matrix = np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape))
            return [int(row[0]) for row in matrix]
    return []


def _first_of(text: str) -> int:
    number = text.strip().removeprefix("q")
    return int(number) if number.lstrip("-").isdecimal() else 1


def planted_answer(request: pb.TopKRequest, firsts: Sequence[int], version: int) -> pb.TopKResponse:
    """k hits for each query; the query 0 has none."""
    rows = [range(first, first + request.k) if first else range(0) for first in firsts]
    labels = [label for row in rows for label in row]
    response = pb.TopKResponse(
        row_counts=[len(row) for row in rows],
        labels=labels,
        scores=[1.0 - rank / 100 for row in rows for rank in range(len(row))],
        model=request.model.name or "tiny",
        version=version,
        bundle_digest=f"digest{version}",
        timings=pb.StageTimings(queue_s=0.5, search_s=0.25),
    )
    if pb.LABEL_FIELD_KEY in request.label_fields:
        response.label_keys.extend(f"label{label}" for label in labels)
    if pb.LABEL_FIELD_TEXT in request.label_fields:
        response.label_texts.extend(f"topic{label}" for label in labels)
    if short := [i for i, row in enumerate(rows) if len(row) == 0]:
        response.notices.add(kind=pb.NOTICE_KIND_NO_KNOWN_FEATURES, queries=short)
    return response


@dataclass
class FakeTransport:
    """A transport of the blocking client that asks a `FakeRetrieval`."""

    retrieval: FakeRetrieval
    stream_faults: dict[int, Exception | pb.StreamError] = field(default_factory=dict)
    open_streams: int = 0
    num_streams: int = 0
    num_stream_requests: int = 0
    is_closed: bool = False

    def call(self, call: Call) -> Any:
        match call.method:
            case "TopK":
                return self.retrieval.top_k(call.request)
            case "GetServerInfo":
                return self.retrieval.server_info()
            case "Check":
                return self._check(call.request.value)

    def open_stream(self) -> FakeStream:
        self.open_streams += 1
        self.num_streams += 1
        return FakeStream(self)

    def close(self) -> None:
        self.is_closed = True

    def _check(self, service: str) -> Int32Value:
        known = {"motherlode.v1.RetrievalService": 1, "model:tiny": 1, "model:broken": 2}
        if service not in known:
            raise refusal("NotFoundError", "unknown service")
        return Int32Value(value=known[service])


class FakeStream:
    """Answers in order; the fault of request i is raised or sent in place of its answer."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport
        self._waiting: list[tuple[int, pb.TopKStreamRequest]] = []
        self.is_finished = False

    def send(self, message: pb.TopKStreamRequest) -> None:
        assert not self.is_finished
        self._waiting.append((self._transport.num_stream_requests, message))
        self._transport.num_stream_requests += 1

    def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        assert timeout_s > 0
        number, message = self._waiting.pop(0)
        fault = self._transport.stream_faults.get(number)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return pb.TopKStreamResponse(error=fault)
        return pb.TopKStreamResponse(response=self._transport.retrieval.top_k(message.request))

    def finish(self) -> None:
        self.is_finished = True

    def close(self) -> None:
        self._transport.open_streams -= 1


class AsyncFakeTransport:
    """The same for the asyncio client."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport

    async def call(self, call: Call) -> Any:
        return self._transport.call(call)

    def open_stream(self) -> AsyncFakeStream:
        return AsyncFakeStream(self._transport.open_stream())

    async def close(self) -> None:
        self._transport.close()


class AsyncFakeStream:
    """The same for the asyncio client."""

    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream

    def send(self, message: pb.TopKStreamRequest) -> None:
        self._stream.send(message)

    async def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        return self._stream.receive(timeout_s)

    def finish(self) -> None:
        self._stream.finish()

    def close(self) -> None:
        self._stream.close()
