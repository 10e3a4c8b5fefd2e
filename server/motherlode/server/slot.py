"""Which versions of which models answer: swapped in one step, let go when their last call is done.

All of it belongs to the event loop's thread; the engine and the loader only hold what they get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import final

from motherlode.core.errors import InvalidInputError, NotFoundError, UnavailableError
from motherlode.core.retriever import Retriever
from motherlode.server.canary import Canary
from motherlode.server.metrics import VersionMeters
from motherlode.server.statistics import VersionStatistics

_FORGETTING = 0.1
_UNLOADED = "unloaded; it serves again once an operator loads it"


@final
class ServedVersion:
    """One version of a model in memory.

    A call takes the version that serves when it arrives and keeps it to its end. So no answer mixes
    versions, a request is checked against the very bundle that will answer it, and a version that
    was swapped out stays whole until its last call is done.

    Args:
        duration_s: Seconds that a batch may take at first; taken for slow unless that is known.

    Attributes:
        retriever: Answers the queries.
        meters: Metrics of this version.
        statistics: Sums over its calls.
        usual_duration_s: Seconds that a batch may well take, going by the latest ones.
    """

    def __init__(
        self, retriever: Retriever, meters: VersionMeters, *, duration_s: float = 1.0
    ) -> None:
        self.retriever = retriever
        self.meters = meters
        self.statistics = VersionStatistics()
        self.model = retriever.model
        self.version = retriever.version
        self.digest = retriever.digest
        self.usual_duration_s = duration_s
        self._num_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def note_duration(self, duration_s: float) -> None:
        """A batch took so long."""
        # A slow one counts at once, and it takes many fast ones to forget it.
        fading_s = self.usual_duration_s + _FORGETTING * (duration_s - self.usual_duration_s)
        self.usual_duration_s = max(duration_s, fading_s)

    def begin_call(self) -> None:
        """A call relies on this version from now on."""
        self._num_calls += 1
        self._idle.clear()

    def end_call(self) -> None:
        """The call is done, one way or another."""
        self._num_calls -= 1
        if self._num_calls == 0:
            self._idle.set()

    @property
    def num_calls(self) -> int:
        """Calls that rely on this version now."""
        return self._num_calls

    async def wait_idle(self) -> None:
        """Returns when no call relies on this version."""
        await self._idle.wait()


@final
class Slot:
    """The place of one model in the server.

    Attributes:
        model: Its name.
        current: The serving version; None until one was loaded.
        kept: Earlier versions that still answer requests that name them, the last to serve first.
        beside: Versions that were loaded to be named, or to be on trial, and never served.
        canary: The trial that one of them is on; None where there is none.
        trial_error: Why the version that the alias `canary` names is not on trial; or empty.
        is_draining: Whether calls are refused because the versions make way for a new one.
        is_unloaded: Whether an operator has let the model go: no version is to come in.
        aliases: Versions by alias, as the repository last had them.
        load_error: Why the version that should serve does not; empty where it does.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.current: ServedVersion | None = None
        self.kept: tuple[ServedVersion, ...] = ()
        self.beside: tuple[ServedVersion, ...] = ()
        self.canary: Canary | None = None
        self.trial_error = ""
        self.is_draining = False
        self.is_unloaded = False
        self.aliases: Mapping[str, int] = {}
        self.load_error = ""
        self._moved = asyncio.Event()

    @property
    def loaded(self) -> tuple[ServedVersion, ...]:
        """The serving version, then those beside it, then the kept ones."""
        others = (*self.beside, *self.kept)
        return others if self.current is None else (self.current, *others)

    def find(self, version: int) -> ServedVersion | None:
        """A loaded version by its number."""
        return next((served for served in self.loaded if served.version == version), None)

    def swap(self, new: ServedVersion, *, num_kept: int) -> tuple[ServedVersion, ...]:
        """Makes a version the serving one, loaded before or not; gives those that leave."""
        former = () if self.current is None else (self.current,)
        earlier = [old for old in (*former, *self.kept) if old.version != new.version]
        replaced = [old for old in self.loaded if old.version == new.version and old is not new]
        self.beside = tuple(old for old in self.beside if old.version != new.version)
        self.current, self.kept = new, tuple(earlier[:num_kept])
        self._moved.set()
        return self.release((*earlier[num_kept:], *replaced))

    def add(self, new: ServedVersion) -> None:
        """Puts a version beside the serving one."""
        self.beside = (*self.beside, new)

    def unload(self) -> tuple[ServedVersion, ...]:
        """Takes all versions out, until `is_unloaded` is taken back; gives them."""
        self.is_unloaded, self.load_error, self.trial_error = True, _UNLOADED, ""
        self._moved.set()
        return self.release(self.loaded)

    async def wait_idle(self, longest_s: float) -> bool:
        """Whether the last call of all versions ends in so many seconds.

        Returns at once when another version comes to serve, or the model is unloaded.
        """
        self._moved.clear()
        idle = asyncio.create_task(_last_calls(self.loaded))
        moved = asyncio.create_task(self._moved.wait())
        await asyncio.wait({idle, moved}, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        is_idle = idle.done()
        for task in (idle, moved):
            task.cancel()
        return is_idle

    def release(self, leaving: Collection[ServedVersion]) -> tuple[ServedVersion, ...]:
        """Takes versions out; gives them."""
        if self.canary is not None and self.canary.served in leaving:
            self.canary = None
        if self.current in leaving:
            self.current = None
        self.beside = tuple(old for old in self.beside if old not in leaving)
        self.kept = tuple(old for old in self.kept if old not in leaving)
        return tuple(leaving)

    def serving(self) -> ServedVersion:
        """The serving version.

        Raises:
            UnavailableError: If no version could be loaded, a new one is about to be, or the model
                was unloaded.
        """
        if self.is_unloaded:
            why = f"model {self.model} was unloaded by an operator"
            raise UnavailableError(why, reason="MODEL_UNLOADED")
        if self.is_draining:
            why = f"model {self.model} makes way for a new version"
            raise UnavailableError(why, reason="RELOADING")
        if self.current is None:
            raise UnavailableError(self._why_none(), reason="MODEL_NOT_LOADED")
        return self.current

    def choose(self, version: int | None = None, alias: str | None = None) -> ServedVersion:
        """The version for a request: the serving one, or the canary, unless it names another.

        Raises:
            NotFoundError: If no such alias exists, or the version named is not loaded.
            UnavailableError: As `serving`.
        """
        current = self.serving()
        if alias is not None:
            if alias not in self.aliases:
                raise NotFoundError("alias", f"{self.model}@{alias}", known=self._known())
            version = self.aliases[alias]
        if version is None:
            canary = self.canary
            return canary.served if canary and canary.takes_next() else current
        if (served := self.find(version)) is not None:
            return served
        raise NotFoundError("version", f"{self.model}@{version}", known=self._known())

    def _why_none(self) -> str:
        why = self.load_error or "it is being loaded"
        return f"no version of model {self.model} is loaded: {why}"

    def _known(self) -> list[str]:
        served = [f"{self.model}@{served.version}" for served in self.loaded]
        versions = {served.version for served in self.loaded}
        named = [alias for alias, version in self.aliases.items() if version in versions]
        return served + [f"{self.model}@{alias}" for alias in sorted(named)]


async def _last_calls(versions: Collection[ServedVersion]) -> None:
    for served in versions:
        await served.wait_idle()


@final
class Catalog:
    """The slots of all models, by name."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        # One step, for metrics are read in a thread of their own.
        return iter([slot for _, slot in sorted(self._slots.items())])

    def open(self, model: str) -> Slot:
        """The slot of a model, made if it is new."""
        if model not in self._slots:
            self._slots[model] = Slot(model)
        return self._slots[model]

    def close(self, model: str) -> tuple[ServedVersion, ...]:
        """Takes a model out; gives the versions that were loaded."""
        return self._slots.pop(model).loaded

    def find(self, model: str) -> Slot:
        """The slot of a model; an empty name means the only model there is.

        Raises:
            NotFoundError: If the server has no such model, or none at all.
            InvalidInputError: If the name is empty and there are several models.
        """
        if model in self._slots:
            return self._slots[model]
        known = sorted(self._slots)
        if model or not known:
            raise NotFoundError("model", model or "(none named)", known=known)
        if len(known) > 1:
            raise InvalidInputError("model.name", expected=f"one of {', '.join(known)}", actual="")
        return self._slots[known[0]]
