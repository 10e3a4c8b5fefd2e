"""The life of a server: bind, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, final
from wsgiref.simple_server import WSGIServer

import grpc
import torch
from grpc_channelz.v1 import channelz_pb2_grpc
from prometheus_client import start_http_server

from motherlode.core.errors import ConfigError
from motherlode.core.index import LabelIndex, set_index_threads
from motherlode.inference import open_inference_pb2, open_inference_pb2_grpc
from motherlode.server.admin import SERVICE as ADMIN_SERVICE
from motherlode.server.admin import AdminServicer, Operations, UnderWay
from motherlode.server.batcher import Batcher
from motherlode.server.channelz import SERVICE as CHANNELZ_SERVICE
from motherlode.server.channelz import ChannelzServicer
from motherlode.server.config import ServerConfig, split_address
from motherlode.server.correlation import stamp_logs
from motherlode.server.health import SERVICES, HealthBoard
from motherlode.server.metrics import Meters
from motherlode.server.open_inference import (
    InferenceServicer,
    RepositoryControl,
    refuse_other_methods,
)
from motherlode.server.port import Port, cannot_bind
from motherlode.server.queue_limits import QueueLimits
from motherlode.server.recall import RecallSampler
from motherlode.server.reception import Reception
from motherlode.server.security import Security
from motherlode.server.servicer import RetrievalServicer
from motherlode.server.slot import Catalog
from motherlode.server.watcher import Watcher
from motherlode.server.witness import Witness
from motherlode.v1 import model_admin_pb2_grpc, retrieval_pb2_grpc

if TYPE_CHECKING:
    from motherlode.server.tracing import Tracing

logger = logging.getLogger(__name__)

_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# For the engine to end its last batch, even where calls get no grace.
_SHORTEST_GRACE_S = 1.0

# Garbage is rare in the request path, and a full collection stops it for tens of milliseconds.
_GC_THRESHOLDS = (50_000, 20, 100)


@final
@dataclass(frozen=True, slots=True)
class Readiness:
    """What a caller who waits for a server wants to know.

    Attributes:
        listen: Bound address of the gRPC port.
        admin: Bound address of the operators' gRPC port.
        metrics: Bound address of the Prometheus port.
        models: Serving version by model.
        pid: The process.
    """

    listen: str
    admin: str
    metrics: str
    models: dict[str, int]
    pid: int


@final
class Server:
    """Ports for callers, operators and Prometheus; one engine, any number of models.

    Attributes:
        catalog: What it serves.
        watcher: What keeps that up to date.
        security: Who may call, and how much they may send.
        meters: Its metrics.
        listen_address: Bound address of the gRPC port; empty before that.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.meters = Meters()
        self._health = HealthBoard()
        self.listen_address = ""
        self.catalog = Catalog()
        self.watcher = Watcher(config, self.catalog, self.meters, self._health)
        self._batcher = Batcher(
            self.meters,
            QueueLimits(
                config.max_queued_queries,
                config.max_queued_bytes,
                config.max_queue_delay_s,
                config.max_batch_queries,
            ),
            max_batch_bytes=config.max_batch_bytes,
        )
        self._reception = Reception(config, self.catalog, self._batcher, self.meters)
        self.security = Security(config, self.meters)
        note_unread = self._reception.count_unread
        self._port = Port("listen", config.listen, self.security, note_unread)
        self._admin = Port("admin", config.admin, self.security, note_unread)
        self._recall = _recall_sampler(config, self.meters)
        self._tracing = _tracing(config)
        self._reception.witness = Witness(
            config.slow_call_s, recall=self._recall, tracing=self._tracing
        )
        self._describe()
        self._metrics: tuple[WSGIServer, threading.Thread] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._guarding: asyncio.Task[None] | None = None

    async def start(self) -> Readiness:
        """Binds the ports, loads what the repository has, and serves.

        From the first moment on health is answered, and calls are told that the server is starting.

        Raises:
            ConfigError: If the repository is no folder, or an address cannot be bound.
        """
        if not self._config.repository.is_dir():
            raise ConfigError("repository", expected="a folder", actual=self._config.repository)
        metrics = self._start_metrics()
        self._batcher.start()
        if self._recall is not None:
            self._recall.start()
        await self._health.start()
        self.listen_address = listen = await self._port.open(self._register, SERVICES, self._health)
        services = (ADMIN_SERVICE, _INFERENCE, CHANNELZ_SERVICE)
        admin = await self._admin.open(self._register_admin, services, self._health)
        await self.watcher.scan()
        self._reception.refusal = None
        self._watching = asyncio.create_task(self.watcher.run())
        self._guarding = asyncio.create_task(self.security.run())
        models = {slot.model: slot.current.version for slot in self.catalog if slot.current}
        if not models:
            logger.warning("there is no model to serve yet in %s", self._config.repository)
        return Readiness(listen, admin, metrics, models, os.getpid())

    def look(self) -> None:
        """Asks for a look at the repository, the certificate and the keys now."""
        self.watcher.trigger()
        self.security.trigger()

    @property
    def is_draining(self) -> bool:
        """Whether new calls are refused because the server stops."""
        return self._reception.draining.is_set()

    @property
    def is_working(self) -> bool:
        """Whether the engine or the loader is still at work."""
        return self._batcher.is_running or self.watcher.is_loading

    async def stop(self) -> None:
        """Answers what is under way, refuses what comes, and stops within the grace."""
        await self._health.stop()
        await asyncio.sleep(self._config.drain_delay_s)
        self._reception.drain()
        if self._watching is not None:
            self._watching.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.drain_grace_s
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reception.wait_idle(), self._config.drain_grace_s)
        await self.close(grace_s=max(0.0, deadline - loop.time()))

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Closes the ports and ends the threads; calls under way have `grace_s` seconds left.

        To close twice does no harm.
        """
        for task in (self._watching, self._guarding):
            if task is not None:
                task.cancel()
        await self._port.close(grace_s)
        await self._admin.close(grace_s)
        await asyncio.to_thread(self._batcher.stop, max(grace_s, _SHORTEST_GRACE_S))
        self.watcher.close()
        if self._recall is not None:
            await asyncio.to_thread(self._recall.stop, _SHORTEST_GRACE_S)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._metrics is not None:
            http, thread = self._metrics
            await asyncio.to_thread(http.shutdown)
            http.server_close()
            thread.join()

    def _register(self, server: Any) -> None:
        retrieval = RetrievalServicer(self._config, self.catalog, self._reception)
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(retrieval, server)  # type: ignore[no-untyped-call]
        self._register_inference(server, None)

    def _register_admin(self, server: Any) -> None:
        """What operators may do and see."""
        operations, under_way = Operations(self._config, self.watcher), UnderWay()
        servicer = AdminServicer(self.catalog, self.watcher, operations, under_way)
        model_admin_pb2_grpc.add_ModelAdminServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        self._register_inference(server, RepositoryControl(self.catalog, operations, under_way))
        channelz = ChannelzServicer((self._port, self._admin))
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz, server)

    def _register_inference(self, server: Any, control: RepositoryControl | None) -> None:
        inference = InferenceServicer(self._config, self.catalog, self._reception, control)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)  # type: ignore[no-untyped-call]
        refuse_other_methods(server)

    def _describe(self) -> None:
        """Metrics that are read off what is there anyway."""
        self.meters.build_info.labels(
            version("motherlode"), LabelIndex.faiss_version, torch.__version__, grpc.__version__
        ).set(1)
        self.meters.watch_models(
            serving=lambda: sum(slot.current is not None for slot in self.catalog),
            failing=lambda: sum(bool(s.load_error) and not s.is_unloaded for s in self.catalog),
            unloaded=lambda: sum(slot.is_unloaded for slot in self.catalog),
        )

    def _start_metrics(self) -> str:
        host, port = split_address(self._config.metrics)
        try:
            self._metrics = start_http_server(port, host.strip("[]"), self.meters.registry)
        except OSError as error:
            raise cannot_bind("metrics", self._config.metrics) from error
        return f"{host}:{self._metrics[0].server_port}"


def _tracing(config: ServerConfig) -> Tracing | None:
    if config.trace_endpoint is None:
        return None
    try:
        from motherlode.server.tracing import Tracing, processor_for  # noqa: PLC0415
    except ImportError as error:
        expected = "the extra otel: pip install 'motherlode[otel]'"
        raise ConfigError("trace_endpoint", expected=expected, actual=error) from error
    return Tracing(processor_for(config.trace_endpoint), sample_rate=config.trace_sample_rate)


def _recall_sampler(config: ServerConfig, meters: Meters) -> RecallSampler | None:
    if not config.recall_sample_rate:
        return None
    return RecallSampler(
        meters,
        sample_rate=config.recall_sample_rate,
        cpu_share=config.recall_cpu_share,
        generator=random.Random(),
    )


def run(config: ServerConfig, on_ready: Callable[[Readiness], None]) -> int:
    """Serves until SIGTERM or SIGINT, then drains; a second signal stops at once.

    SIGHUP asks for a look at the repository, the certificate and the keys.

    Returns:
        The exit status.

    Raises:
        ConfigError: If the server cannot start.
    """
    torch.set_num_threads(config.threads)
    set_index_threads(config.threads)
    gc.set_threshold(*_GC_THRESHOLDS)
    stamp_logs()
    server: list[Server] = []
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, on_ready, server))
    if server[0].is_working:
        # Neither a load nor a batch can be interrupted, and nobody needs its outcome any more.
        logging.shutdown()
        os._exit(0)
    return 0


async def _serve(
    config: ServerConfig, on_ready: Callable[[Readiness], None], made: list[Server]
) -> None:
    server = Server(config)
    made.append(server)
    asked, urged = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: urged.set() if asked.is_set() else asked.set())
    loop.add_signal_handler(signal.SIGHUP, server.look)
    starting = asyncio.create_task(server.start())
    try:
        if not await _first(starting, asked):
            return
        # What was loaded stays; it need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        on_ready(starting.result())
        await asked.wait()
        logger.info("stopping: calls under way are answered, new ones refused")
        stopping = asyncio.create_task(server.stop())
        await _first(stopping, urged)
    finally:
        starting.cancel()
        await server.close()
    logger.info("stopped")


async def _first(task: asyncio.Task[Any], event: asyncio.Event) -> bool:
    """Waits for a task or an event; gives whether the task is done, and raises what it raised."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
