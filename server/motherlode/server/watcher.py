"""Hot reload: find, verify, warm and check a version, then swap it in and let the old one go.

All slow work is done in a thread of its own. Whatever fails there leaves the old version serving.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, final

from motherlode.core.errors import MotherlodeError
from motherlode.core.index.placement import Policy
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.config import ServerConfig
from motherlode.server.gate import Loader, reason_of
from motherlode.server.health import HealthBoard
from motherlode.server.metrics import Meters
from motherlode.server.slot import Catalog, ServedVersion, Slot
from motherlode.server.survey import Fingerprint, Sighting, fingerprint, survey

logger = logging.getLogger(__name__)

_FOREVER = float("inf")
# A full disk or a memory shortage may pass without any change to the bundle.
_RETRY_OTHER_FAILURES_S = 30.0
_ERRORS_SHOWN = 3

_Result = TypeVar("_Result")


@final
@dataclass(frozen=True, slots=True)
class _Failure:
    """A load that failed; not tried again until the files change or the time comes."""

    error: Exception
    files: Fingerprint
    retry_at: float

    def stands(self, files: Fingerprint) -> bool:
        return self.files == files and time.monotonic() < self.retry_at


@final
class Watcher:
    """Keeps the catalog like the repository."""

    def __init__(
        self, config: ServerConfig, catalog: Catalog, meters: Meters, health: HealthBoard
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._meters = meters
        self._health = health
        self._repository = Repository(config.repository)
        self._loader = Loader(
            max_batch=config.max_batch_queries,
            observe=lambda phase, duration_s: meters.load_seconds.labels(phase).observe(duration_s),
            policy=Policy(gpu=config.gpu),
        )
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="motherlode-loader")
        self._failures: dict[tuple[str, int], _Failure] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._wanted_scan = asyncio.Event()
        self._scan_lock = asyncio.Lock()
        self._is_loading = False
        self._missing: set[str] = set()

    def trigger(self) -> None:
        """Asks for a look at the repository now instead of after the interval."""
        self._wanted_scan.set()

    async def run(self) -> None:
        """Looks at the repository again and again, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted_scan.wait(), self._config.reload_interval_s)
            self._wanted_scan.clear()
            try:
                await self.scan()
            except Exception:
                # Whatever it was, the next look may go better; to stop looking would be worse.
                logger.exception("looking at the repository failed")

    async def scan(self) -> None:
        """Looks at the repository once; returns when all that it asks for is done."""
        async with self._scan_lock:
            try:
                found = await self._in_thread(lambda: survey(self._repository, self._config.models))
            except OSError as error:
                logger.warning("the repository cannot be read: %s", error)
                return
            self._warn_of_missing(found)
            for slot in list(self._catalog):
                if slot.model not in found:
                    await self._remove(slot.model)
            for model, sighting in sorted(found.items()):
                if sighting.versions or sighting.error:
                    await self._refresh(self._catalog.open(model), sighting)
            await self._health.set_services(any(slot.current for slot in self._catalog))

    async def wait_retired(self) -> None:
        """Returns when every version that was swapped out is gone."""
        while self._retiring:
            await asyncio.wait(self._retiring)

    @property
    def is_loading(self) -> bool:
        """Whether the thread is at work."""
        return self._is_loading

    def close(self) -> None:
        """Ends the thread after the load under way, if there is one; does not wait for that."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _warn_of_missing(self, found: Collection[str]) -> None:
        missing = set(self._config.models).difference(found)
        for model in sorted(missing - self._missing):
            logger.warning("the repository has no model %s yet", model)
        self._missing = missing

    async def _refresh(self, slot: Slot, sighting: Sighting) -> None:
        if sighting.aliases is not None:
            slot.aliases = dict(sighting.aliases)
        errors = [sighting.error] if sighting.error else []
        for version in self._candidates(slot, sighting):
            loaded = await self._in_thread(
                lambda version=version: self._try_load(slot.model, version)  # type: ignore[misc]
            )
            if isinstance(loaded, Retriever):
                await self._swap(slot, loaded)
                break
            errors.append(str(loaded))
        # Callers see it, and where the server keeps its files is not their business.
        slot.load_error = _summary(errors).replace(f"{self._repository.path}/", "")
        await self._health.set_model(slot.model, slot.current is not None)

    def _candidates(self, slot: Slot, sighting: Sighting) -> list[int]:
        """Versions that should serve rather than the current one, best first."""
        current = None if slot.current is None else slot.current.version
        alias = self._config.serve_alias
        if alias is not None and alias in slot.aliases:
            target = slot.aliases[alias]
            return [] if target == current else [target]
        if alias is not None and sighting.aliases is None:
            # Nobody can tell what should serve, and the newest may be what was rolled back.
            return []
        candidates = []
        for version in sighting.versions:
            if version == current:
                break
            candidates.append(version)
        return candidates

    def _try_load(self, model: str, version: int) -> Retriever | Exception:
        """A loaded version, or why it failed, now or the last time; in the loader's thread."""
        folder = self._repository.path_of(model, version)
        files = fingerprint(folder)
        known = self._failures.get((model, version))
        if known is not None and known.stands(files):
            return known.error
        self._is_loading = True
        try:
            retriever = self._loader.load(folder, model, version)
        except Exception as error:
            self._remember(model, version, error, files)
            return error
        finally:
            self._is_loading = False
        self._failures.pop((model, version), None)
        self._meters.loads.labels(model, "ok", "").inc()
        return retriever

    def _remember(self, model: str, version: int, error: Exception, files: Fingerprint) -> None:
        is_final = isinstance(error, MotherlodeError)
        retry_at = _FOREVER if is_final else time.monotonic() + _RETRY_OTHER_FAILURES_S
        # Without its traceback, which would keep the half-loaded bundle in memory.
        logger.error(
            "%s@%d does not serve: %s", model, version, error, exc_info=None if is_final else error
        )
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self._failures[model, version] = _Failure(error, files, retry_at)
        self._meters.loads.labels(model, "failed", reason_of(error)).inc()

    async def _swap(self, slot: Slot, retriever: Retriever) -> None:
        manifest = retriever.manifest
        meters = self._meters.version(retriever.model, retriever.version)
        meters.describe(
            digest=retriever.digest,
            index=manifest.index.kind,
            ram_bytes=manifest.memory.ram_bytes,
            gpu_bytes=retriever.path.index.gpu_bytes,
        )
        retired = slot.swap(ServedVersion(retriever, meters), num_kept=self._config.kept_versions)
        self._meters.last_reload.labels(slot.model).set_to_current_time()
        logger.info("%s@%d serves, digest %.12s", slot.model, retriever.version, retriever.digest)
        self._retire(retired)

    async def _remove(self, model: str) -> None:
        logger.info("model %s has left the repository", model)
        self._retire(self._catalog.close(model))
        for key in [key for key in self._failures if key[0] == model]:
            del self._failures[key]
        await self._health.set_model(model, False)
        self._meters.remove_model(model)

    def _retire(self, versions: tuple[ServedVersion, ...]) -> None:
        for served in versions:
            task = asyncio.create_task(self._let_go(served))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _let_go(self, served: ServedVersion) -> None:
        await served.wait_idle()
        loaded = {(s.model, s.version) for slot in self._catalog for s in slot.loaded}
        if (served.model, served.version) not in loaded:
            served.meters.remove()
        logger.info("%s@%d is gone", served.model, served.version)
        del served
        await self._in_thread(_return_memory)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _summary(errors: Sequence[str]) -> str:
    """The first few, as every version may have one."""
    shown = "; ".join(errors[:_ERRORS_SHOWN])
    rest = len(errors) - _ERRORS_SHOWN
    return f"{shown}; and {rest} more" if rest > 0 else shown


def _return_memory() -> None:
    """Gives freed memory back to the system, which glibc does not do by itself."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
