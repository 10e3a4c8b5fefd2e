"""Which version is on trial beside the serving one, from its alias to the verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import final

from motherlode.core.errors import MotherlodeError
from motherlode.core.repository import Repository
from motherlode.server.canary import Canary, CanaryLimits
from motherlode.server.config import ServerConfig
from motherlode.server.intake import Intake
from motherlode.server.metrics import Meters
from motherlode.server.quiet import QuietThread
from motherlode.server.retirement import Retirement
from motherlode.server.slot import ServedVersion, Slot

logger = logging.getLogger(__name__)

CANARY = "canary"


@final
class Trials:
    """Keeps each model's canary like its alias `canary`; takes back what does badly.

    A version that was taken back, or that came to serve, is not tried again until the alias was
    elsewhere, or someone asks for it again. The alias of what was taken back is removed, so that no
    other server and no restart tries it either.
    """

    def __init__(
        self,
        config: ServerConfig,
        meters: Meters,
        intake: Intake,
        retirement: Retirement,
        thread: QuietThread,
        trigger: Callable[[], None],
    ) -> None:
        self._config = config
        self._meters = meters
        self._intake = intake
        self._retirement = retirement
        self._thread = thread
        self._trigger = trigger
        self._repository = Repository(config.repository)
        self._limits = CanaryLimits(
            config.canary_min_calls, config.canary_error_factor, config.canary_latency_factor
        )
        self._percents: dict[str, float] = {}
        self._over: dict[str, int] = {}

    def percent(self, model: str) -> float:
        """The share of a model's canary, 0 to 100."""
        return self._percents.get(model, self._config.canary_percent)

    def allow(self, slot: Slot, percent: float) -> None:
        """From now on a canary of this model gets this share, whatever happened before."""
        self._percents[slot.model] = percent
        self._over.pop(slot.model, None)
        slot.trial_error = ""

    def is_on_trial(self, slot: Slot, version: int) -> bool:
        """Whether a version is on trial, or was and did badly: not to serve as the newest."""
        return slot.aliases.get(CANARY) == version or self._over.get(slot.model) == version

    def forget(self, model: str) -> None:
        """Forgets a model that is no more."""
        self._percents.pop(model, None)
        self._over.pop(model, None)

    async def refresh(self, slot: Slot) -> None:
        """Begins, goes on with or ends the trial of a model's canary."""
        if slot.canary is not None and slot.canary.trouble:
            await self._take_back(slot, slot.canary)
        version, current = slot.aliases.get(CANARY), slot.current
        # Where no alias decides what serves, this alone keeps it from serving as the newest.
        if version is not None or self._config.serve_alias:
            self._forget_unless(slot.model, version)
        if version is None or current is None:
            self._end(slot)
        elif current.version == version:
            # Promoted: a rollback must not bring it back by half.
            self._end(slot)
            self._over[slot.model] = version
        elif self._over.get(slot.model) != version:
            await self._try(slot, version, current)

    def _forget_unless(self, model: str, version: int | None) -> None:
        if self._over.get(model) != version:
            self._over.pop(model, None)

    async def _try(self, slot: Slot, version: int, current: ServedVersion) -> None:
        canary = slot.canary
        if canary is not None and canary.served.version != version:
            self._end(slot)
        if slot.find(version) is None:
            failure = await self._intake.take(slot, version, slot.add, may_drain=False)
            slot.trial_error = "" if failure is None else str(failure)
        served, percent = slot.find(version), self.percent(slot.model)
        if served is None:
            return
        if canary is None or canary.served is not served or canary.stable is not current:
            slot.canary = canary = Canary(served, current, percent, self._limits, self._trigger)
            logger.info("%s@%d is on trial with %g %%", slot.model, version, percent)
        canary.percent = percent
        self._meters.canary_share.labels(slot.model, str(version)).set(percent)

    def _end(self, slot: Slot) -> None:
        if slot.canary is None:
            return
        served, slot.canary = slot.canary.served, None
        labels = {"model": slot.model, "version": str(served.version)}
        self._meters.canary_share.remove_by_labels(labels)
        if served in slot.beside:
            self._retirement.begin(slot.release([served]))

    async def _take_back(self, slot: Slot, canary: Canary) -> None:
        version = canary.served.version
        slot.trial_error = f"{slot.model}@{version} was taken back: {canary.trouble}"
        logger.error("the canary %s", slot.trial_error)
        self._meters.canary_rollbacks.labels(slot.model).inc()
        self._over[slot.model] = version
        self._end(slot)
        try:
            slot.aliases = await self._thread.run(
                lambda: self._write_verdict(slot.model, version, canary.stable.version)
            )
        except (MotherlodeError, OSError) as error:
            logger.warning("the aliases of %s stay as they are: %s", slot.model, error)

    def _write_verdict(self, model: str, version: int, stable: int) -> dict[str, int]:
        """Removes the alias of a canary; gives the aliases that are left."""
        serving = self._config.serve_alias
        if serving and serving not in self._repository.aliases(model):
            # Else the version, if it is the newest, would serve after the next restart.
            self._repository.set_alias(model, serving, stable)
        if self._repository.aliases(model).get(CANARY) == version:
            self._repository.remove_alias(model, CANARY)
        return self._repository.aliases(model)
