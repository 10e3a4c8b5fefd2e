"""The control groups that this process is in, as Linux shows them: what a container may have.

A group's limit holds for all groups below it, so the least on the way up to the root counts. There
are two versions: 2 has one tree for everything, 1 a tree for each controller or a few.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# Version 1 has no word for "no limit" but a number near 2**63.
_NO_LIMIT = 2**60


def groups_of(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """The folders of the process's own group for a controller, and of all groups above it.

    Args:
        controller: Such as `memory`.
        proc: Where the kernel shows processes.
        cgroups: Where it shows control groups.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text("utf-8").splitlines()
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            path = Path(os.path.normpath(name.lstrip("/") or "."))
            # In a container the name may be the host's, and only the root of the tree be visible.
            inside = (one for one in (path, *path.parents) if ".." not in one.parts)
            yield from (cgroups / controllers / one for one in inside)


def memory_limit_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes of memory that this process may have; None where no group limits it."""
    readings = [
        number_in(group / name)
        for group in groups_of("memory", proc, cgroups)
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    return min((one for one in readings if one is not None and one < _NO_LIMIT), default=None)


def cpu_quota(proc: Path = PROC, cgroups: Path = CGROUPS) -> float | None:
    """Cores' worth of CPU time that this process may have; None where no group limits it."""
    readings = [
        read(group) for group in groups_of("cpu", proc, cgroups) for read in (_quota, _old_quota)
    ]
    return min((one for one in readings if one is not None), default=None)


def number_in(file: Path) -> int | None:
    """The number in a file; None where it is missing, or has the word `max`."""
    with suppress(OSError, ValueError):
        return int(file.read_text("ascii"))
    return None


def _quota(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    return None


def _old_quota(group: Path) -> float | None:
    quota, period = (number_in(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None
