"""Prometheus metrics, in a registry of their own.

A version's series appear when it is loaded and disappear when it is retired, so a server that
reloads for months exports no more series than on its first day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from motherlode.core.memory import limit_bytes
from motherlode.server.histogram import Histogram
from motherlode.server.process_memory import anonymous_bytes

STAGES = ("queue", "features", "encode", "search", "rank", "write")
QUEUE_REASONS = ("queue_full", "queue_bytes", "queue_delay", "queue_deadline")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LOAD_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_VERSION = ("model", "version")


@final
class Meters:
    """All metrics of one server.

    Attributes:
        registry: What the metrics port exports.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._define_requests()
        self._define_engine()
        self._define_models()
        self._define_security()
        self._define_recall()
        self._define_process()

    def _define_requests(self) -> None:
        self.requests = self._counter(
            "requests_total", "Requests by outcome.", *_VERSION, "method", "code"
        )
        self.queries = self._counter("queries_total", "Queries answered.", *_VERSION)
        self.request_seconds = self._histogram(
            "request_duration_seconds",
            "Time from a request's arrival to its answer, of requests answered.",
            *_VERSION,
        )
        self.short_results = self._counter(
            "results_short_total", "Queries with fewer than k hits.", *_VERSION
        )
        self.in_flight = self._gauge("inflight_requests", "Requests under way.")

    def _define_engine(self) -> None:
        self.stage_seconds = self._histogram(
            "stage_duration_seconds",
            "Time by stage: of each request in queue and write, of each batch elsewhere.",
            *_VERSION,
            "stage",
        )
        self.batch_rows = self._histogram(
            "batch_size", "Queries that ran together.", *_VERSION, buckets=_ROWS
        )
        self.queue_depth = self._gauge("queue_depth", "Queries that wait for the engine.")
        self.queue_bytes = self._gauge("queue_bytes", "Memory that waiting queries hold.")
        self.rejected = self._counter("queue_rejected_total", "Requests not queued.", "reason")
        self.dropped = self._counter(
            "queue_dropped_total",
            "Requests that nobody waited for any more, by the stage that they did not come to.",
            "reason",
            "stage",
        )
        for reason in (*QUEUE_REASONS, "draining", "starting"):
            self.rejected.labels(reason)
        for reason in ("cancelled", "expired"):
            for stage in ("encode", "search"):
                self.dropped.labels(reason, stage)

    def _define_models(self) -> None:
        self.loads = self._counter(
            "model_loads_total", "Attempts to load a version.", "model", "result", "reason"
        )
        self.load_seconds = self._histogram(
            "model_load_duration_seconds",
            "Time by phase of a load.",
            "phase",
            buckets=_LOAD_SECONDS,
        )
        self.last_reload = self._gauge(
            "model_last_reload_timestamp_seconds", "Unix time of the last swap.", "model"
        )
        self.canary_share = self._gauge(
            "model_canary_percent", "Share of the unpinned calls that a canary gets.", *_VERSION
        )
        self.canary_rollbacks = self._counter(
            "model_canary_rollbacks_total", "Canaries taken back by themselves.", "model"
        )
        self.version_info = self._gauge(
            "model_version_info", "1 for each loaded version.", *_VERSION, "digest", "index"
        )
        self.resident_bytes = self._gauge(
            "model_resident_bytes", "Predicted memory of a loaded version.", *_VERSION, "where"
        )

    def _define_security(self) -> None:
        self.access_refused = self._counter(
            "access_refused_total", "Calls refused for want of a key or a role.", "reason"
        )
        for reason in ("key_missing", "key_unknown", "key_expired", "permission_denied"):
            self.access_refused.labels(reason)
        self._stale_credentials = self._gauge(
            "credentials_stale", "1 while changed files of this kind cannot be used.", "kind"
        )
        # Its label leaves servers without a certificate without a series, where 0 would say 1970.
        self._certificate_expiry = self._gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use runs out.",
            "certificate",
        )

    def watch_credentials(self, kind: str, is_stale: Callable[[], bool]) -> None:
        """Asks at each scrape whether files of a kind hold something that cannot be used."""
        self._stale_credentials.labels(kind).set_function(is_stale)

    def watch_certificate_expiry(self, expires_s: Callable[[], float]) -> None:
        """Asks at each scrape for the Unix time at which the certificate in use runs out."""
        self._certificate_expiry.labels("server").set_function(expires_s)

    def _define_recall(self) -> None:
        self.recall_found = self._counter(
            "search_recall_found_total",
            "Hits of sampled answers that exact search would give too.",
            *_VERSION,
            "k",
        )
        self.recall_wanted = self._counter(
            "search_recall_wanted_total", "Hits of exact search for those queries.", *_VERSION, "k"
        )
        self.recall_ratio = self._gauge(
            "search_recall_ratio", "Found by wanted, of the latest samples.", *_VERSION, "k"
        )
        self.recall_samples = self._counter(
            "search_recall_samples_total", "Queries sampled for that, by outcome.", "outcome"
        )
        for outcome in ("measured", "dropped", "retired", "failed"):
            self.recall_samples.labels(outcome)

    def _define_process(self) -> None:
        self.build_info = self._gauge(
            "build_info", "1, with the releases at work.", "version", "faiss", "torch", "grpc"
        )
        self.models = self._gauge("models", "Models by state.", "state")
        anonymous = self._gauge(
            "memory_anonymous_bytes", "Memory of the process that no file backs."
        )
        anonymous.set_function(anonymous_bytes)
        limit = self._gauge(
            "memory_limit_bytes", "Memory that the process may have: of its container or machine."
        )
        limit.set_function(limit_bytes)

    def watch_models(self, **counts: Callable[[], float]) -> None:
        """Asks for the number of models in each state at each scrape."""
        for state, count in counts.items():
            self.models.labels(state).set_function(count)

    def watch_queue(self, depth: Callable[[], float], size_bytes: Callable[[], float]) -> None:
        """Asks for the number of waiting queries and the memory that they hold at each scrape."""
        self.queue_depth.set_function(depth)
        self.queue_bytes.set_function(size_bytes)

    def version(self, model: str, version: int) -> VersionMeters:
        """The metrics of one version, ready to be counted on."""
        return VersionMeters(self, model, version)

    def remove_model(self, model: str) -> None:
        """Removes the series of a model that the server has no more."""
        self.loads.remove_by_labels({"model": model})
        self.last_reload.remove_by_labels({"model": model})
        self.canary_rollbacks.remove_by_labels({"model": model})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"motherlode_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"motherlode_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        return Histogram(f"motherlode_{name}", text, labels, bounds=buckets, registry=self.registry)


@final
class VersionMeters:
    """Metrics of one version, their label values looked up once.

    Attributes:
        is_removed: Whether its series have gone, and must not come back.
    """

    def __init__(self, meters: Meters, model: str, version: int) -> None:
        self._meters = meters
        self._labels = {"model": model, "version": str(version)}
        values = (model, str(version))
        self._stages = {stage: meters.stage_seconds.labels(*values, stage) for stage in STAGES}
        self._request_seconds = meters.request_seconds.labels(*values)
        self._queries = meters.queries.labels(*values)
        self._short = meters.short_results.labels(*values)
        self._rows = meters.batch_rows.labels(*values)
        self._codes: dict[tuple[str, str], Any] = {}
        self.is_removed = False
        self.count_request("TopK", "OK", 0)

    @property
    def labels(self) -> tuple[str, ...]:
        """Model and version, as label values."""
        return tuple(self._labels.values())

    def describe(self, *, digest: str, index: str, ram_bytes: int, gpu_bytes: int) -> None:
        """Says what was loaded."""
        labels = tuple(self._labels.values())
        self._meters.version_info.labels(*labels, digest, index).set(1)
        self._meters.resident_bytes.labels(*labels, "ram").set(ram_bytes)
        self._meters.resident_bytes.labels(*labels, "gpu").set(gpu_bytes)

    def count_request(self, method: str, code: str, amount: int = 1) -> None:
        """Counts requests by outcome."""
        child = self._codes.get((method, code))
        if child is None:
            child = self._meters.requests.labels(*self._labels.values(), method, code)
            self._codes[method, code] = child
        child.inc(amount)

    def observe_request(self, method: str, duration_s: float) -> None:
        """Counts one request that was answered."""
        self.count_request(method, "OK")
        self._request_seconds.observe(duration_s)

    def observe_stage(self, stage: str, duration_s: float) -> None:
        """Counts the time of one stage."""
        self._stages[stage].observe(duration_s)

    def observe_batch(self, num_queries: int, num_short: int) -> None:
        """Counts the queries of one batch that ran, and those with fewer than k hits."""
        self._rows.observe(num_queries)
        self._queries.inc(num_queries)
        if num_short:
            self._short.inc(num_short)

    def remove(self) -> None:
        """Removes every series of this version."""
        meters = self._meters
        self._codes.clear()
        self.is_removed = True
        for metric in (
            meters.requests,
            meters.queries,
            meters.request_seconds,
            meters.short_results,
            meters.stage_seconds,
            meters.batch_rows,
            meters.canary_share,
            meters.version_info,
            meters.resident_bytes,
            meters.recall_found,
            meters.recall_wanted,
            meters.recall_ratio,
        ):
            metric.remove_by_labels(self._labels)
