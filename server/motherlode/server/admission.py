"""Whether a new version may come in, and what must leave memory for it; decided before it is read.

What a version needs is what its manifest predicts. What there is: the memory that the kernel could
give without swapping, of the machine and of its control group, less a tenth; and, where a limit is
set, what the versions loaded so far leave of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

from motherlode.core.errors import MotherlodeError
from motherlode.core.manifest import EMBEDDINGS_FILE, INDEX_FILE, Manifest

ReloadPolicy = Literal["auto", "double_buffer", "drain"]

_UNLIMITED = 2**63
_HEADROOM = 0.1


@final
class AdmissionError(MotherlodeError):
    """There is no room for the version."""


@final
class Way(enum.Enum):
    """How a version comes in.

    Attributes:
        BESIDE: It is loaded while all others stay.
        WITHOUT_KEPT: Versions that are merely kept go first.
        DRAIN: The serving version goes first; until the new one serves, calls are refused.
    """

    BESIDE = "beside"
    WITHOUT_KEPT = "without_kept"
    DRAIN = "drain"


@final
@dataclass(frozen=True, slots=True)
class Footprint:
    """Predicted memory of a version.

    Attributes:
        total_bytes: All of it.
        mapped_bytes: The part that lies in mapped files. The kernel takes its pages back when it
            needs them, so a reading of free memory has them already.
    """

    total_bytes: int
    mapped_bytes: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Footprint:
        """What the manifest predicts."""
        total_bytes, files = manifest.memory.ram_bytes, manifest.files
        mapped = sum(files[n].size_bytes for n in (EMBEDDINGS_FILE, INDEX_FILE) if n in files)
        return cls(total_bytes, min(mapped, total_bytes))


@final
@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is in memory when a version wants to come in.

    Attributes:
        serving: The version that would be replaced; None if the model has none.
        kept: Versions of the same model that could go.
        others: All other loaded versions, of whatever model.
    """

    serving: Footprint | None = None
    kept: Sequence[Footprint] = ()
    others: Sequence[Footprint] = ()

    @property
    def loaded(self) -> list[Footprint]:
        """All of them."""
        return [*([self.serving] if self.serving else []), *self.kept, *self.others]


@final
class Admission:
    """Chooses the way in.

    Args:
        policy: `auto` drains where nothing else fits, `double_buffer` never, `drain` always.
        limit_bytes: What all versions may have together by prediction; None for no limit.
        read_available: Gives the free memory, in bytes.
    """

    def __init__(
        self, policy: ReloadPolicy, limit_bytes: int | None, read_available: Callable[[], int]
    ) -> None:
        self._policy = policy
        self._limit_bytes = limit_bytes
        self._read_available = read_available

    def choose(self, new: Footprint, there: Occupancy, *, may_drain: bool = True) -> Way:
        """How the version comes in.

        Args:
            new: What wants to come in.
            there: Who is in memory.
            may_drain: Whether it is to take the serving version's place.

        Raises:
            AdmissionError: If it does not fit; says how much is missing.
        """
        serving = [] if there.serving is None else [there.serving]
        departures = {
            Way.BESIDE: [],
            Way.WITHOUT_KEPT: [*there.kept],
            Way.DRAIN: [*there.kept, *serving],
        }
        ways = self._ways(is_replacing=may_drain and bool(serving))
        available = self._available(there)
        for way in ways:
            room = min(available + _anonymous(departures[way]), self._rest(there, departures[way]))
            if new.total_bytes <= room:
                return way
        raise AdmissionError(
            f"{new.total_bytes:,} bytes are predicted, and there is room for {max(room, 0):,}"
            f" (reload_policy {self._policy})"
        )

    def _ways(self, *, is_replacing: bool) -> list[Way]:
        if self._policy == "drain" and is_replacing:
            return [Way.DRAIN]
        is_last_resort = self._policy == "auto" and is_replacing
        return [Way.BESIDE, Way.WITHOUT_KEPT, *([Way.DRAIN] if is_last_resort else [])]

    def _available(self, there: Occupancy) -> int:
        if there.serving is None and not there.kept:
            # To refuse the only version would help nobody, and mapped files may exceed memory.
            return _UNLIMITED
        return int(self._read_available() * (1 - _HEADROOM))

    def _rest(self, there: Occupancy, leaving: Iterable[Footprint]) -> int:
        if self._limit_bytes is None:
            return _UNLIMITED
        return self._limit_bytes - _total(there.loaded) + _total(leaving)


def _anonymous(footprints: Iterable[Footprint]) -> int:
    return sum(one.total_bytes - one.mapped_bytes for one in footprints)


def _total(footprints: Iterable[Footprint]) -> int:
    return sum(one.total_bytes for one in footprints)
