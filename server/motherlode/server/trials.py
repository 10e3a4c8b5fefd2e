"""Which version is on trial beside the serving one, from its alias to the verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a model's trials.

    Attributes:
        percent: The share that an operator gave; None for that of the configuration.
        over: The version that is not tried again; None if there is none.
        error: Why the version that the alias names is not on trial; or empty.
        is_refused: Whether that is because it did not come in.
    """

    percent: float | None
    over: int | None
    error: str
    is_refused: bool


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
        self._refused: set[str] = set()

    def percent(self, model: str) -> float:
        """The share of a model's canary, 0 to 100."""
        return self._percents.get(model, self._config.canary_percent)

    def allow(self, slot: Slot, percent: float) -> None:
        """From now on a canary of this model gets this share, whatever happened before."""
        self._percents[slot.model] = percent
        self._over.pop(slot.model, None)
        self._refused.discard(slot.model)
        slot.trial_error = ""

    def standing(self, slot: Slot) -> Standing:
        """What `put_back` needs."""
        model, error = slot.model, slot.trial_error
        percent, over = self._percents.get(model), self._over.get(model)
        return Standing(percent, over, error, is_refused=model in self._refused)

    def put_back(self, slot: Slot, before: Standing) -> None:
        """Undoes an `allow` that came to nothing."""
        self.forget(slot.model)
        if before.percent is not None:
            self._percents[slot.model] = before.percent
        if before.over is not None:
            self._over[slot.model] = before.over
        if before.is_refused:
            self._refused.add(slot.model)
        slot.trial_error = before.error

    def is_on_trial(self, slot: Slot, version: int) -> bool:
        """Whether a version is on trial, or was and did badly: not to serve as the newest."""
        if CANARY in slot.aliases and slot.canary and slot.canary.served.version == version:
            # Its alias has moved on, and it goes on until the next trial can begin.
            return True
        return slot.aliases.get(CANARY) == version or self._over.get(slot.model) == version

    def forget(self, model: str) -> None:
        """Forgets a model that is no more."""
        self._percents.pop(model, None)
        self._over.pop(model, None)
        self._refused.discard(model)

    async def refresh(self, slot: Slot) -> None:
        """Begins, goes on with or ends the trial of a model's canary."""
        if slot.canary is not None and slot.canary.trouble:
            await self._take_back(slot, slot.canary)
        version, current = slot.aliases.get(CANARY), slot.current
        # Where no alias decides what serves, this alone keeps it from serving as the newest.
        if version is not None or self._config.serve_alias:
            self._forget_unless(slot.model, version)
        if version is None or current is None:
            self._call_off(slot)
        elif current.version == version:
            # Promoted: a rollback must not bring it back by half.
            self._call_off(slot)
            self._over[slot.model] = version
        elif self._over.get(slot.model) != version:
            await self._try(slot, version)

    def _forget_unless(self, model: str, version: int | None) -> None:
        if self._over.get(model) != version:
            self._over.pop(model, None)

    async def _try(self, slot: Slot, version: int) -> None:
        """Puts a version on trial; an earlier trial goes on until this one can begin."""
        if slot.find(version) is None:
            failure = await self._intake.take(slot, version, slot.add)
            if failure is not None:
                self._refuse(slot, str(failure))
        served, current = slot.find(version), slot.current
        # It may have come to serve while it was being loaded.
        if served is not None and current is not None and served is not current:
            self._refused.discard(slot.model)
            slot.trial_error = ""
            self._put_on_trial(slot, served, current)

    def _refuse(self, slot: Slot, why: str) -> None:
        self._refused.add(slot.model)
        slot.trial_error = why
        if slot.canary is not None and slot.canary.stable is not slot.current:
            # The earlier trial has nothing left to be compared with.
            self._end(slot)

    def _put_on_trial(self, slot: Slot, served: ServedVersion, current: ServedVersion) -> None:
        percent, canary = self.percent(slot.model), slot.canary
        if canary is not None and canary.served is not served:
            self._end(slot)
        if canary is None or canary.served is not served or canary.stable is not current:
            slot.canary = canary = Canary(served, current, percent, self._limits, self._trigger)
            logger.info("%s@%d is on trial with %g %%", slot.model, served.version, percent)
        canary.percent = percent
        self._meters.canary_share.labels(slot.model, str(served.version)).set(percent)

    def _call_off(self, slot: Slot) -> None:
        """Ends the trial where the alias asks for none; why one was refused is of no more use."""
        if slot.model in self._refused:
            self._refused.discard(slot.model)
            slot.trial_error = ""
        self._end(slot)

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
        self._refused.discard(slot.model)
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
