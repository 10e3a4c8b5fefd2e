"""Hot reload: what the repository has, and which version of a model should serve.

All slow work is done in a thread of its own. Whatever fails there leaves the old version serving.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import final

from motherlode.core.errors import NotFoundError
from motherlode.core.repository import Repository
from motherlode.server.config import ServerConfig
from motherlode.server.failure import LoadFailure
from motherlode.server.gate import Figure
from motherlode.server.health import HealthBoard
from motherlode.server.intake import Intake
from motherlode.server.metrics import Meters
from motherlode.server.quiet import QuietThread
from motherlode.server.retirement import Retirement
from motherlode.server.slot import Catalog, ServedVersion, Slot
from motherlode.server.survey import Sighting, look_at, model_names
from motherlode.server.trials import Trials

logger = logging.getLogger(__name__)

_ERRORS_SHOWN = 3
_VERSIONS_SHOWN = 10


@final
class Watcher:
    """Keeps the catalog like the repository.

    Attributes:
        intake: How versions come in.
        retirement: How they leave.
        trials: The canaries.
        thread: Where the slow work is done.
        sightings: Each model as it was seen the last time.
    """

    def __init__(
        self, config: ServerConfig, catalog: Catalog, meters: Meters, health: HealthBoard
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._meters = meters
        self._health = health
        self._repository = Repository(config.repository)
        self._wanted_scan = asyncio.Event()
        self._scan_lock = asyncio.Lock()
        self._missing: set[str] = set()
        self._alias_writes: Counter[str] = Counter()
        self.sightings: dict[str, Sighting] = {}
        self.thread = QuietThread("motherlode-loader")
        self.retirement = Retirement(catalog, self.thread)
        self.intake = Intake(
            config, catalog, meters, health=health, thread=self.thread, retirement=self.retirement
        )
        self.trials = Trials(
            config, meters, self.intake, self.retirement, self.thread, self.trigger
        )

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
                models = await self.thread.run(self._model_names)
            except OSError as error:
                logger.warning("the repository cannot be read: %s", error)
                return
            self._warn_of_missing(models)
            self.sightings = {
                name: self.sightings[name] for name in models if name in self.sightings
            }
            for slot in list(self._catalog):
                if slot.model not in models:
                    await self._remove(slot.model)
            for model in models:
                try:
                    await self._keep_up(model)
                except OSError as error:
                    logger.warning("model %s cannot be looked at: %s", model, error)
                except Exception:
                    # Whatever it was, the models after this one have nothing to do with it.
                    logger.exception("looking at model %s failed", model)
            await self._tell_health()

    async def refresh(self, model: str) -> None:
        """Looks at one model that the server has; returns when all that this asks for is done.

        Raises:
            NotFoundError: If the repository has it no more.
            OSError: If the repository cannot be read.
        """
        async with self._scan_lock:
            sighting = await self._look_at(model)
            if sighting is None:
                raise NotFoundError("model", model)
            await self._refresh(self._catalog.open(model), sighting)
            await self._tell_health()

    async def load(self, slot: Slot, version: int) -> LoadFailure | None:
        """Puts a version beside the serving one; gives why that cannot be."""
        async with self._scan_lock:
            if slot.find(version) is not None:
                return None
            return await self.intake.take(slot, version, slot.add, is_urged=True)

    async def load_model(self, model: str) -> Slot:
        """Has a model serve what should, whatever was done or failed before; gives its slot.

        Raises:
            NotFoundError: If the repository has no version of it, or it is not to be served.
            OSError: If the repository cannot be read.
        """
        async with self._scan_lock:
            is_served = not self._config.models or model in self._config.models
            sighting = await self._look_at(model) if is_served else None
            if sighting is None or not (sighting.versions or sighting.error):
                raise NotFoundError("model", model, known=[slot.model for slot in self._catalog])
            slot = self._catalog.open(model)
            slot.is_unloaded = False
            self.intake.forget(model)
            await self._refresh(slot, sighting)
            await self._tell_health()
            return slot

    async def unload_model(self, slot: Slot) -> None:
        """Lets a model go; no look at the repository brings it back.

        It waits for no load under way: what that brings is let go too.
        """
        self.retirement.begin(slot.unload())
        logger.info("model %s is unloaded", slot.model)
        await self._health.set_model(slot.model, False)
        await self._tell_health()

    async def validate(self, slot: Slot, version: int) -> tuple[Figure, ...] | LoadFailure:
        """What the gate measures of a version, or why it is refused; it does not stay."""
        async with self._scan_lock:
            return await self.intake.validate(slot, version)

    def serve_loaded(self, slot: Slot, version: int) -> None:
        """Lets a loaded version serve that the serving alias names from now on; takes no time.

        It waits for no load under way: what that brings finds that it is not wanted any more.
        """
        served = slot.find(version)
        assert served is not None
        self.take_aliases(slot, {**slot.aliases, self._config.serve_alias: version})
        if served is not slot.current:
            self._swap(slot, served)
        self.trigger()

    def take_aliases(self, slot: Slot, aliases: Mapping[str, int]) -> None:
        """Goes by aliases that were just written; a reading under way may be older."""
        slot.aliases = dict(aliases)
        self._alias_writes[slot.model] += 1

    @property
    def is_loading(self) -> bool:
        """Whether the thread is at work."""
        return self.thread.is_busy

    async def wait_retired(self) -> None:
        """Returns when every version that was swapped out is gone."""
        await self.retirement.wait()

    def close(self) -> None:
        """Ends the thread after the work under way, if there is some; does not wait for that."""
        self.thread.close()

    def _model_names(self) -> list[str]:
        return model_names(self._repository, self._config.models)

    async def _look_at(self, model: str) -> Sighting | None:
        """One model as it is now; None if the repository has it no more."""
        while True:
            writes = self._alias_writes[model]
            sighting = await self.thread.run(lambda: look_at(self._repository, model))
            if writes == self._alias_writes[model]:
                break
        if sighting is not None:
            self.sightings[model] = sighting
        return sighting

    async def _keep_up(self, model: str) -> None:
        """Keeps one model like the repository."""
        # Looked at now, since the models before it may have taken minutes to load.
        sighting = await self._look_at(model)
        if sighting is not None and (sighting.versions or sighting.error):
            await self._refresh(self._catalog.open(model), sighting)

    async def _tell_health(self) -> None:
        await self._health.set_services(any(slot.current for slot in self._catalog))

    def _warn_of_missing(self, found: Collection[str]) -> None:
        missing = set(self._config.models).difference(found)
        for model in sorted(missing - self._missing):
            logger.warning("the repository has no model %s yet", model)
        self._missing = missing

    async def _refresh(self, slot: Slot, sighting: Sighting) -> None:
        if sighting.aliases is not None:
            slot.aliases = dict(sighting.aliases)
        if not sighting.error:
            self.intake.forget(slot.model, but={*sighting.versions, *slot.aliases.values()})
        if not slot.is_unloaded:
            await self._keep_serving(slot, sighting)
        await self._health.set_model(slot.model, slot.current is not None)

    async def _keep_serving(self, slot: Slot, sighting: Sighting) -> None:
        errors = await self._bring_in(slot, sighting)
        await self.trials.refresh(slot)
        # Else it was unloaded meanwhile, and that is why nothing serves.
        if not slot.is_unloaded:
            # Callers see it, and where the server keeps its files is not their business.
            slot.load_error = _summary(errors).replace(f"{self._repository.path}/", "")

    async def _bring_in(self, slot: Slot, sighting: Sighting) -> list[str]:
        """Has the version serve that should; gives what is in its way."""
        if missing := self._missing_version(slot, sighting):
            if missing != slot.load_error:
                logger.error("%s", missing)
            return [missing]
        errors = [sighting.error] if sighting.error else []
        for version in self._candidates(slot, sighting):
            failure = await self._serve(slot, version)
            if failure is None:
                break
            errors.append(str(failure))
        return errors

    def _missing_version(self, slot: Slot, sighting: Sighting) -> str:
        """Of what the serving alias names and nobody has; empty where all is well.

        Nothing serves in its place: it may still be on its way here, and what is newest may be what
        an operator has taken back.
        """
        alias = self._config.serve_alias
        version = slot.aliases.get(alias)
        if version is None or sighting.error:
            return ""
        if version in sighting.versions or slot.find(version) is not None:
            return ""
        known = ", ".join(map(str, sighting.versions[:_VERSIONS_SHOWN])) or "none"
        there_is = f"the repository has {known}"
        return f"the alias {alias} names {slot.model}@{version}, which is not there; {there_is}"

    def _candidates(self, slot: Slot, sighting: Sighting) -> list[int]:
        """Versions that should serve rather than the current one, best first."""
        current = None if slot.current is None else slot.current.version
        alias = self._config.serve_alias
        if alias in slot.aliases:
            target = slot.aliases[alias]
            return [] if target == current else [target]
        if alias and sighting.aliases is None:
            # Nobody can tell what should serve, and the newest may be what was rolled back.
            return []
        newer = list(takewhile(lambda version: version != current, sighting.versions))
        sound = [version for version in newer if not self.trials.is_on_trial(slot, version)]
        # Where there is nothing else, what is on trial is better than nothing.
        return sound if sound or current is not None else newer

    async def _serve(self, slot: Slot, version: int) -> LoadFailure | None:
        """Makes a version the serving one; without a load where it is loaded."""
        if not self._is_wanted(slot, version):
            # An operator chose another while a better candidate was being tried.
            return None
        loaded = slot.find(version)
        if loaded is None:
            place, is_wanted = partial(self._place, slot), partial(self._is_wanted, slot, version)
            return await self.intake.take(slot, version, place, is_wanted=is_wanted)
        self._swap(slot, loaded)
        return None

    def _place(self, slot: Slot, served: ServedVersion) -> None:
        if slot.current is not None and not self._is_wanted(slot, served.version):
            logger.info("%s@%d is not wanted any more", slot.model, served.version)
            self.retirement.begin([served])
            return
        self._swap(slot, served)

    def _is_wanted(self, slot: Slot, version: int) -> bool:
        """Whether it may serve: no alias names another, and the model is not unloaded."""
        return (
            not slot.is_unloaded and slot.aliases.get(self._config.serve_alias, version) == version
        )

    def _swap(self, slot: Slot, served: ServedVersion) -> None:
        retired = slot.swap(served, num_kept=self._config.kept_versions)
        self._meters.last_reload.labels(slot.model).set_to_current_time()
        logger.info("%s@%d serves, digest %.12s", slot.model, served.version, served.digest)
        self.retirement.begin(retired)

    async def _remove(self, model: str) -> None:
        logger.info("model %s has left the repository", model)
        self.retirement.begin(self._catalog.close(model))
        self.intake.forget(model)
        self.trials.forget(model)
        await self._health.set_model(model, False)
        self._meters.remove_model(model)


def _summary(errors: Sequence[str]) -> str:
    """The first few, as every version may have one."""
    shown = "; ".join(errors[:_ERRORS_SHOWN])
    rest = len(errors) - _ERRORS_SHOWN
    return f"{shown}; and {rest} more" if rest > 0 else shown
