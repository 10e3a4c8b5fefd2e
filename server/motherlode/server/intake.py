"""How a version comes in, stage by stage; until the last of them the old one serves.

verify  every hash              admit   is there room, and who must go for it
load    read all parts          warmup  batches of all sizes
gate    golden answers, recall, latency

Where there is no room for two, the old version is drained and dropped after `admit`, and comes back
if a later stage fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, final

from motherlode.core.bundle import read_bundle
from motherlode.core.errors import MotherlodeError, UnavailableError
from motherlode.core.index.placement import Policy
from motherlode.core.manifest import Manifest, check_files, read_manifest
from motherlode.core.memory import available_bytes
from motherlode.core.placing import place_bundle
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.admission import (
    Admission,
    AdmissionError,
    Footprint,
    Occupancy,
    Way,
)
from motherlode.server.config import ServerConfig
from motherlode.server.failure import LoadFailure, StageError
from motherlode.server.gate import Figure, GateLimits, check_gate, warm_up
from motherlode.server.health import HealthBoard
from motherlode.server.metrics import Meters
from motherlode.server.quiet import QuietThread
from motherlode.server.retirement import Retirement
from motherlode.server.slot import Catalog, ServedVersion, Slot
from motherlode.server.survey import Fingerprint, fingerprint

logger = logging.getLogger(__name__)

Place = Callable[[ServedVersion], object]

_Result = TypeVar("_Result")


@final
class _UnwantedError(Exception):
    """What was to come in has been overtaken by what an operator asked for."""


@final
@dataclass(frozen=True, slots=True)
class _Loaded:
    """A version that may serve, and what was measured of it."""

    retriever: Retriever
    single_query_s: float
    figures: tuple[Figure, ...]


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """The version that is coming in, and how far it has come."""

    model: str
    version: int
    stage: str


@final
class Intake:
    """Takes versions in, one at a time.

    Attributes:
        progress: What is under way; None where nothing is.
        failures: Of the last attempt at each version, by model and version.
    """

    def __init__(
        self,
        config: ServerConfig,
        catalog: Catalog,
        meters: Meters,
        *,
        health: HealthBoard,
        thread: QuietThread,
        retirement: Retirement,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._meters = meters
        self._health = health
        self._thread = thread
        self._retirement = retirement
        self._repository = Repository(config.repository)
        self._admission = Admission(
            config.reload_policy, config.memory_limit_bytes, available_bytes
        )
        self._policy = Policy(gpu=config.gpu)
        self._limits = GateLimits(config.gate_recall_tolerance, config.gate_latency_factor)
        self.progress: Progress | None = None
        self.failures: dict[tuple[str, int], LoadFailure] = {}

    async def take(
        self,
        slot: Slot,
        version: int,
        place: Place,
        *,
        is_wanted: Callable[[], bool] | None = None,
        is_urged: bool = False,
    ) -> LoadFailure | None:
        """Loads a version and places it; gives why not, now or the last time.

        It is let go instead where the model was unloaded meanwhile.

        Args:
            slot: Its model's.
            version: Its number.
            place: Puts it where it belongs in the slot.
            is_wanted: Whether it is still to take the serving version's place, asked before that
                one goes first; None where it never was, so that nothing goes for it.
            is_urged: Whether to try although nothing has changed since the last failure.
        """
        key, folder = (slot.model, version), self._repository.path_of(slot.model, version)
        files = await self._thread.run(lambda: fingerprint(folder))
        known = self.failures.get(key)
        if known is not None and known.stands(files) and not is_urged:
            return known
        try:
            await self._take(slot, version, place, is_wanted)
        except _UnwantedError:
            logger.info("%s@%d is not wanted any more", slot.model, version)
            return None
        except StageError as error:
            self.failures[key] = failure = self._describe(slot.model, version, error, files)
            self._meters.loads.labels(slot.model, "failed", failure.reason).inc()
            return failure
        finally:
            self.progress = None
        self.failures.pop(key, None)
        self._meters.loads.labels(slot.model, "ok", "").inc()
        return None

    async def validate(self, slot: Slot, version: int) -> tuple[Figure, ...] | LoadFailure:
        """What the gate measured of a version that goes again at once; or why it was refused."""
        try:
            if await self._admit(slot, version, may_drain=False) is not Way.BESIDE:
                reason = "there is no room beside the versions that are loaded"
                raise StageError("admit", AdmissionError(reason))
            loaded = await self._load(slot, version)
        except StageError as error:
            return self._describe(slot.model, version, error, ())
        finally:
            self.progress = None
        return loaded.figures

    def forget(self, model: str, *, but: Collection[int] = ()) -> None:
        """Forgets the failures of a model, but for those of some versions."""
        self.failures = {
            (name, version): failure
            for (name, version), failure in self.failures.items()
            if name != model or version in but
        }

    async def _take(
        self, slot: Slot, version: int, place: Place, is_wanted: Callable[[], bool] | None
    ) -> None:
        way = await self._admit(slot, version, may_drain=is_wanted is not None)
        if way is Way.DRAIN and is_wanted is not None:
            await self._exchange(slot, version, place, is_wanted)
            return
        if way is Way.WITHOUT_KEPT:
            await self._drop(slot, slot.kept)
        self._put(slot, await self._load(slot, version), place)

    def _put(self, slot: Slot, loaded: _Loaded, place: Place) -> None:
        served = self._served(loaded)
        if slot.is_unloaded:
            self._retirement.begin([served])
            raise _UnwantedError
        place(served)

    async def _admit(self, slot: Slot, version: int, *, may_drain: bool) -> Way:
        progress = Progress(slot.model, version, "verify")
        folder = self._repository.path_of(slot.model, version)
        manifest = await self._stage(progress, lambda: _verify(folder))
        there, new = self._occupancy(slot), Footprint.of(manifest)
        progress = Progress(slot.model, version, "admit")
        choose = self._admission.choose
        return await self._stage(progress, lambda: choose(new, there, may_drain=may_drain))

    async def _exchange(
        self, slot: Slot, version: int, place: Place, is_wanted: Callable[[], bool]
    ) -> None:
        """Drops the serving version before the new one is loaded; brings it back if that fails."""
        if slot.current is None or not is_wanted():
            raise _UnwantedError
        former = slot.current.version
        logger.warning("%s drains: there is no room for two versions", slot.model)
        slot.is_draining = True
        await self._health.set_model(slot.model, False)
        try:
            await self._drain(slot, Progress(slot.model, version, "drain"), is_wanted)
            try:
                loaded = await self._load(slot, version)
            except StageError as error:
                failure = error
            else:
                self._put(slot, loaded, place)
                return
            # There is no room for the new version beside the old one.
            failure.forget_frames()
            self._put(slot, await self._load(slot, former), place)
            raise failure
        finally:
            slot.is_draining = False

    async def _drain(self, slot: Slot, progress: Progress, is_wanted: Callable[[], bool]) -> None:
        self.progress = progress
        started, grace_s = time.perf_counter(), self._config.drain_grace_s
        is_idle = await slot.wait_idle(grace_s)
        if not is_wanted():
            # An operator chose another meanwhile, which would go as well.
            raise _UnwantedError
        if not is_idle:
            why = f"calls under way did not end within {grace_s:g} s"
            raise StageError("drain", UnavailableError(why))
        await self._drop(slot, slot.loaded)
        self._meters.load_seconds.labels("drain").observe(time.perf_counter() - started)

    async def _drop(self, slot: Slot, versions: tuple[ServedVersion, ...]) -> None:
        """Returns when versions are out of memory."""
        leaving = list(slot.release(versions))
        del versions
        while leaving:
            await self._retirement.let_go(leaving.pop())

    async def _load(self, slot: Slot, version: int) -> _Loaded:
        """A version that went through all stages after it was admitted."""
        folder = self._repository.path_of(slot.model, version)
        at = partial(Progress, slot.model, version)
        serving = None if slot.current is None else slot.current.retriever
        largest = self._config.max_batch_queries
        retriever = await self._stage(at("load"), lambda: self._read(folder, slot.model, version))
        single_s = await self._stage(at("warmup"), lambda: warm_up(retriever, largest))
        figures = await self._stage(
            at("gate"), lambda: check_gate(retriever, serving, self._limits, max_batch=largest)
        )
        return _Loaded(retriever, single_s, figures)

    async def _stage(self, progress: Progress, work: Callable[[], _Result]) -> _Result:
        """Does one stage in the thread, and times it."""
        self.progress = progress
        started = time.perf_counter()
        try:
            return await self._thread.run(work)
        except Exception as error:
            raise StageError(progress.stage, error) from error
        finally:
            duration_s = time.perf_counter() - started
            self._meters.load_seconds.labels(progress.stage).observe(duration_s)

    def _read(self, folder: Path, model: str, version: int) -> Retriever:
        bundle, placement = place_bundle(read_bundle(folder, verify=False), self._policy)
        where, why = " + ".join(placement.devices), placement.reason
        logger.info("%s@%d: index on %s: %s", model, version, where, why)
        return Retriever(bundle, model=model, version=version)

    def _occupancy(self, slot: Slot) -> Occupancy:
        kept = {served.version for served in slot.kept}
        current = slot.current
        return Occupancy(
            serving=None if current is None else _footprint(current),
            kept=[_footprint(served) for served in slot.kept],
            others=[
                _footprint(served)
                for other in self._catalog
                for served in other.loaded
                if other is not slot or (served is not current and served.version not in kept)
            ],
        )

    def _served(self, loaded: _Loaded) -> ServedVersion:
        retriever = loaded.retriever
        manifest = retriever.manifest
        meters = self._meters.version(retriever.model, retriever.version)
        meters.describe(
            digest=retriever.digest,
            index=manifest.index.kind,
            ram_bytes=manifest.memory.ram_bytes,
            gpu_bytes=retriever.path.index.gpu_bytes,
        )
        return ServedVersion(retriever, meters, duration_s=loaded.single_query_s)

    def _describe(
        self, model: str, version: int, error: StageError, files: Fingerprint
    ) -> LoadFailure:
        # Callers see it, and where the server keeps its files is not their business.
        failure = LoadFailure.of(model, version, error, files, hidden=f"{self._repository.path}/")
        cause = error.cause
        is_foreseen = isinstance(cause, MotherlodeError)
        logger.error("no new version: %s", failure, exc_info=None if is_foreseen else cause)
        error.forget_frames()
        return failure


def _verify(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    check_files(folder, manifest, verify=True)
    return manifest


def _footprint(served: ServedVersion) -> Footprint:
    return Footprint.of(served.retriever.manifest)
