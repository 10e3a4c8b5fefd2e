"""A gRPC server that gives planted answers and refusals, to test what lies below the clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from typing_extensions import override

from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc
from tests.support.retrieval import FakeRetrieval

TIMEOUT_S = 30.0


class RefusedError(Exception):
    """Refuse a request with this status."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


@dataclass
class FakeServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """The service over a `FakeRetrieval`.

    Attributes:
        fake: Gives the answers; its script may raise `RefusedError`.
        before_stream_answer: Called with the number of each request, over all streams.
        metadata: Of the last call.
        streams_over: Counts the streams that have come to an end.
    """

    fake: FakeRetrieval
    before_stream_answer: Callable[[int], object] = int
    metadata: dict[str, str | bytes] = field(default_factory=dict)
    num_stream_requests: int = 0
    streams_over: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @override
    def TopK(self, request: pb.TopKRequest, context: Any) -> pb.TopKResponse:
        self.metadata = dict(context.invocation_metadata())
        try:
            return self.fake.top_k(request)
        except RefusedError as refused:
            refuse(context, refused)
            raise AssertionError from refused

    @override
    def TopKStream(
        self, request_iterator: Iterator[pb.TopKStreamRequest], context: Any
    ) -> Iterator[pb.TopKStreamResponse]:
        context.add_callback(self.streams_over.release)
        for message in request_iterator:
            number = self.num_stream_requests
            self.num_stream_requests += 1
            try:
                self.before_stream_answer(number)
            except RefusedError as refused:
                refuse(context, refused)
            yield pb.TopKStreamResponse(response=self.fake.top_k(message.request))

    @override
    def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return self.fake.server_info()


def refuse(context: Any, refused: RefusedError) -> None:
    """End the call with the status of a refusal."""
    status = status_pb2.Status(code=refused.code.value[0], message=refused.message)
    for detail in refused.details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    if refused.details:
        context.abort_with_status(rpc_status.to_status(status))
    context.abort(refused.code, refused.message)


@contextmanager
def fake_server(fake: FakeRetrieval) -> Iterator[tuple[str, FakeServicer]]:
    """Address and servicer of a server on a free port."""
    servicer = FakeServicer(fake)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    health_servicer = health.HealthServicer()
    health_servicer.set("motherlode.v1.RetrievalService", health_pb2.HealthCheckResponse.SERVING)
    health_servicer.set("model:broken", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait(TIMEOUT_S)
