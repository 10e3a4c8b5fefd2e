"""What operators do: to load, let go and try versions, and to say which serves.

What decides what serves is written into the repository, as aliases: so it outlives a restart, and
every server of the repository goes by it. Belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NoReturn, final

from motherlode.core.errors import (
    InvalidInputError,
    MotherlodeError,
    NotFoundError,
    UnsupportedError,
)
from motherlode.core.manifest import MANIFEST_FILE
from motherlode.core.repository import Repository
from motherlode.server.config import ServerConfig
from motherlode.server.failure import LoadFailure, LoadRefusedError, RepositoryUnusableError
from motherlode.server.gate import Figure
from motherlode.server.slot import Slot
from motherlode.server.trials import CANARY
from motherlode.server.watcher import Watcher

logger = logging.getLogger(__name__)


@final
class Operations:
    """Each does one thing to one model, and returns when it is done.

    Those that write aliases go one after the other for a model: each finds what the one before it
    left, and puts that back if it fails.

    All of them raise NotFoundError for a version that is not there, and BundleError where the
    repository cannot be read or written.
    """

    def __init__(self, config: ServerConfig, watcher: Watcher) -> None:
        self._serve_alias = config.serve_alias
        self._repository = Repository(config.repository)
        self._watcher = watcher
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def load(self, slot: Slot, version: int) -> None:
        """Puts a version beside the serving one.

        Raises:
            LoadRefusedError: If it does not pass every stage.
        """
        self._check_not_unloaded(slot)
        await self._check_exists(slot, version)
        failure = await self._watcher.load(slot, version)
        if failure is not None:
            raise LoadRefusedError(failure)
        self._check_not_unloaded(slot)

    async def load_model(self, model: str) -> Slot:
        """Has a model serve what it should, with nothing held against it; gives its slot.

        Raises:
            NotFoundError: If the repository has no such model, or it is not to be served.
            LoadRefusedError: If the version that should serve does not pass every stage; what
                served before goes on, and an older version may have come in.
            RepositoryUnusableError: If the repository does not say which should, or lacks it.
            UnsupportedError: If the model is unloaded meanwhile.
        """
        slot = await self._watcher.load_model(model)
        self._check_not_unloaded(slot)
        if slot.load_error:
            failures = self._watcher.intake.failures
            newest = max((version for name, version in failures if name == model), default=0)
            failure = failures.get((model, slot.aliases.get(self._serve_alias, newest)))
            if failure is None:
                raise RepositoryUnusableError(slot.load_error)
            raise LoadRefusedError(failure)
        return slot

    async def unload_model(self, slot: Slot) -> None:
        """Lets a model go: it serves nothing until it is loaded again, or the server restarts."""
        await self._watcher.unload_model(slot)

    def unload(self, slot: Slot, version: int) -> None:
        """Lets a version go.

        Raises:
            NotFoundError: If it is not loaded.
            UnsupportedError: If it serves or is on trial.
        """
        served = slot.find(version)
        if served is None:
            known = [str(one.version) for one in slot.loaded]
            raise NotFoundError("version", f"{slot.model}@{version}", known=known)
        if served is slot.current:
            raise UnsupportedError(f"{slot.model}@{version} serves; let another one serve first")
        if slot.canary is not None and slot.canary.served is served:
            raise UnsupportedError(f"{slot.model}@{version} is on trial; end that first")
        self._watcher.retirement.begin(slot.release([served]))

    async def validate(self, slot: Slot, version: int) -> tuple[Figure, ...]:
        """What the gate measures of a version, which is let go again at once.

        Raises:
            LoadRefusedError: If it does not pass every stage.
        """
        await self._check_exists(slot, version)
        outcome = await self._watcher.validate(slot, version)
        if isinstance(outcome, LoadFailure):
            raise LoadRefusedError(outcome)
        return outcome

    async def set_alias(self, slot: Slot, alias: str, version: int) -> None:
        """Sets an alias in the repository; the one that decides what serves moves what serves.

        Of a model that is unloaded it says what is to serve once it is loaded.

        Raises:
            ConfigError: If it is not a name for an alias.
            LoadRefusedError: If the version should serve and cannot; the alias is as it was then.
        """
        async with self._locks[slot.model]:
            await self._set_alias(slot, alias, version)

    async def remove_alias(self, slot: Slot, alias: str) -> None:
        """Removes an alias from the repository.

        Raises:
            NotFoundError: If there is no such alias.
        """
        async with self._locks[slot.model]:
            await self._remove_alias(slot, alias)

    async def roll_back(self, slot: Slot, version: int | None = None) -> None:
        """Serves an earlier version and keeps to it; at once where it is in memory.

        Args:
            slot: The model's.
            version: None for the highest below the serving one: of those in memory if there is
                one, else of the repository.

        Raises:
            UnsupportedError: If there is no earlier version, no alias decides what serves, or the
                model is unloaded.
            LoadRefusedError: If it had to be loaded and does not pass every stage.
        """
        async with self._locks[slot.model]:
            self._check_not_unloaded(slot)
            target = await self._earlier(slot) if version is None else version
            await self._set_alias(slot, self._deciding_alias(), target)

    async def set_canary(self, slot: Slot, version: int, percent: float) -> None:
        """Gives a version a share of the calls that name none.

        What serves now is named by the alias that decides it, if it was not yet: the version on
        trial may be the newest, and would serve once the trial is over. An earlier trial goes on
        until this one begins.

        Raises:
            InvalidInputError: If the share is not above 0 and at most 100, or the version serves.
            UnsupportedError: If nothing serves, or no alias decides what does.
            LoadRefusedError: If the version does not pass every stage; all is as it was then.
        """
        if not 0 < percent <= 100:
            raise InvalidInputError("percent", expected="above 0, at most 100", actual=percent)
        async with self._locks[slot.model]:
            if self._serves(slot, version):
                expected = f"another version than {version}, which serves"
                raise InvalidInputError("version", expected=expected, actual=version)
            before = self._watcher.trials.standing(slot)
            try:
                await self._set_canary(slot, version, percent)
            except BaseException:
                self._watcher.trials.put_back(slot, before)
                raise

    async def end_canary(self, slot: Slot) -> None:
        """Ends a trial; the serving version gets all calls again.

        Raises:
            NotFoundError: If there is none.
        """
        await self.remove_alias(slot, CANARY)

    async def _set_alias(self, slot: Slot, alias: str, version: int) -> None:
        async with self._aliases_kept(slot) as (before, written):
            await self._write_alias(slot, alias, version)
            written[alias] = version
            if alias == self._serve_alias and slot.find(version) is not None:
                self._watcher.serve_loaded(slot, version)
            else:
                await self._try_again(slot, version)
            is_to_serve = alias == self._serve_alias and not slot.is_unloaded
            if is_to_serve and not self._serves(slot, version):
                self._refuse(slot, version)
        if alias == self._serve_alias and before.get(CANARY) == version:
            # Promoted: its trial is over, if it did not end by itself meanwhile.
            with suppress(NotFoundError):
                await self._remove_alias(slot, CANARY)

    async def _remove_alias(self, slot: Slot, alias: str) -> None:
        await asyncio.to_thread(self._repository.remove_alias, slot.model, alias)
        await self._watcher.refresh(slot.model)

    async def _set_canary(self, slot: Slot, version: int, percent: float) -> None:
        async with self._aliases_kept(slot) as (before, written):
            for alias, target in (*self._pin(slot, before), (CANARY, version)):
                await self._write_alias(slot, alias, target)
                written[alias] = target
            self._watcher.trials.allow(slot, percent)
            await self._try_again(slot, version)
            if slot.canary is None or slot.canary.served.version != version:
                self._refuse(slot, version)

    async def _check_exists(self, slot: Slot, version: int) -> None:
        manifest = self._repository.path_of(slot.model, max(version, 0)) / MANIFEST_FILE
        if version < 1 or not await asyncio.to_thread(manifest.exists):
            known = await asyncio.to_thread(self._repository.versions, slot.model)
            raise NotFoundError("version", f"{slot.model}@{version}", known=list(map(str, known)))

    async def _aliases(self, slot: Slot) -> dict[str, int]:
        return await asyncio.to_thread(self._repository.aliases, slot.model)

    async def _write_alias(self, slot: Slot, alias: str, version: int) -> None:
        await asyncio.to_thread(self._repository.set_alias, slot.model, alias, version)

    @asynccontextmanager
    async def _aliases_kept(
        self, slot: Slot
    ) -> AsyncIterator[tuple[Mapping[str, int], dict[str, int]]]:
        """The aliases as they are, and where to note what is written; taken back on failure.

        Also where the server stops meanwhile, for the next one would go by what was half done.
        """
        before, written = await self._aliases(slot), dict[str, int]()
        try:
            yield before, written
        except BaseException:
            await self._restore(slot, before, written)
            raise

    async def _restore(
        self, slot: Slot, before: Mapping[str, int], written: Mapping[str, int]
    ) -> None:
        """Never fails: whoever asked is to learn why the operation did."""
        if not written:
            return
        restore = self._repository.restore_aliases
        try:
            aliases = await asyncio.to_thread(restore, slot.model, before, written)
        except (MotherlodeError, OSError) as error:
            logger.error("the aliases of %s cannot be put back: %s", slot.model, error)
            return
        self._watcher.take_aliases(slot, aliases)
        self._watcher.trigger()

    async def _try_again(self, slot: Slot, version: int) -> None:
        """Has the model looked at, with nothing held against the version."""
        self._watcher.intake.failures.pop((slot.model, version), None)
        await self._watcher.refresh(slot.model)

    def _pin(self, slot: Slot, aliases: Mapping[str, int]) -> list[tuple[str, int]]:
        """The alias to write so that what serves now goes on to; none where there is one."""
        alias = self._deciding_alias()
        if slot.current is None:
            raise UnsupportedError(f"model {slot.model} has no serving version to compare with")
        return [] if alias in aliases else [(alias, slot.current.version)]

    async def _earlier(self, slot: Slot) -> int:
        current = None if slot.current is None else slot.current.version
        stored = await asyncio.to_thread(self._repository.versions, slot.model)
        for versions in ([one.version for one in slot.loaded], stored):
            earlier = [version for version in versions if current is None or version < current]
            if earlier:
                return max(earlier)
        raise UnsupportedError(f"model {slot.model} has no version before {current}")

    def _check_not_unloaded(self, slot: Slot) -> None:
        if slot.is_unloaded:
            raise UnsupportedError(f"model {slot.model} is unloaded; load it first")

    def _deciding_alias(self) -> str:
        if not self._serve_alias:
            raise UnsupportedError("no alias decides what serves: the setting serve_alias is empty")
        return self._serve_alias

    def _serves(self, slot: Slot, version: int) -> bool:
        return slot.current is not None and slot.current.version == version

    def _refuse(self, slot: Slot, version: int) -> NoReturn:
        failure = self._watcher.intake.failures.get((slot.model, version))
        if failure is None:
            raise UnsupportedError(f"{slot.model}@{version}: the repository changed meanwhile")
        raise LoadRefusedError(failure)
