"""OpenTelemetry traces: a span for each call, with one for each of its stages.

Spans are made from the times that were taken anyway, once a call is done, so a call that is not
sampled costs next to nothing. Imported only where traces are asked for: the packages come with the
extra `otel`.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any, final

from grpc import StatusCode
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from motherlode.server import correlation
from motherlode.server.call import Answer, Call
from motherlode.server.slot import ServedVersion

_SERVER_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_NS = 1_000_000_000


def processor_for(endpoint: str) -> SpanProcessor:
    """Sends spans in batches, in a thread of its own, to a collector at `http[s]://HOST:PORT`."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))


@final
class Tracing:
    """Makes the spans of calls.

    A call whose caller is in a trace is sampled as that trace is; of the others, a share.

    Args:
        processor: Gets the spans.
        sample_rate: Share of calls without a trace of their own, 0 to 1.
    """

    def __init__(self, processor: SpanProcessor, *, sample_rate: float) -> None:
        release = version("motherlode")
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
        named = Resource({"service.name": "motherlode", "service.version": release})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_rate)),
            resource=named.merge(_without_default_name(Resource.create())),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("motherlode.server", release)
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, method: str, call: Call, answer: Answer, duration_s: float) -> None:
        """Makes the spans of a call that was answered just now."""
        started = time.time_ns() - int(duration_s * _NS)
        span = self._open(method, call.served, started)
        if span.is_recording():
            span.set_attribute("motherlode.k", call.k)
            span.set_attribute("motherlode.num_queries", len(call.queries))
            span.set_attribute("rpc.grpc.status_code", 0)
            self._add_stages(span, answer, started)
        span.end(started + int(duration_s * _NS))

    def failed(
        self, method: str, code: str, served: ServedVersion | None, duration_s: float
    ) -> None:
        """Makes the span of a call that failed just now."""
        started = time.time_ns() - int(duration_s * _NS)
        span = self._open(method, served, started)
        span.set_attribute("rpc.grpc.status_code", StatusCode[code].value[0])
        if code in _SERVER_FAULTS:
            span.set_status(trace.StatusCode.ERROR, code)
        span.end(started + int(duration_s * _NS))

    def close(self) -> None:
        """Sends what is left; blocks the thread for that."""
        self._provider.shutdown()

    def _open(self, method: str, served: ServedVersion | None, started: int) -> trace.Span:
        belongs = correlation.current()
        attributes: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.method": method,
            "motherlode.request_id": belongs.request_id,
        }
        if served is not None:
            attributes["motherlode.model"] = served.model
            attributes["motherlode.version"] = served.version
        return self._tracer.start_span(
            method,
            context=self._propagator.extract(dict(belongs.trace)),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=started,
        )

    def _add_stages(self, parent: trace.Span, answer: Answer, started: int) -> None:
        context, times = trace.set_span_in_context(parent), answer.times
        batch = {"motherlode.batch_size": answer.batch_size}
        for name, duration_s, attributes in (
            ("queue", answer.queue_s, {}),
            ("features", times.features_s, batch),
            ("encode", times.encode_s, batch),
            ("search", times.search_s, batch),
            ("rank", times.rank_s, batch),
        ):
            if duration_s > 0:
                span = self._tracer.start_span(
                    name, context=context, attributes=attributes, start_time=started
                )
                started += int(duration_s * _NS)
                span.end(started)


def _without_default_name(resource: Resource) -> Resource:
    name = str(resource.attributes.get("service.name", ""))
    kept = {key: value for key, value in resource.attributes.items() if key != "service.name"}
    return Resource(kept if name.startswith("unknown_service") else dict(resource.attributes))
