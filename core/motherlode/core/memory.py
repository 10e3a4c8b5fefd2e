"""How much main memory there is to be had, as Linux says it: of the machine and its control groups.

Where nothing says anything, there is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from motherlode.core.control_groups import (
    CGROUPS,
    PROC,
    groups_of,
    memory_limit_bytes,
    number_in,
)

# More than any machine has.
_UNLIMITED = 2**63


def available_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Memory that could be had without swapping: the machine's, or a control group's if less.

    Args:
        proc: Where the kernel shows processes.
        cgroups: Where it shows control groups, version 2.
    """
    readings = [_UNLIMITED, *_of_machine(proc, "MemAvailable")]
    for group in groups_of("memory", proc, cgroups):
        readings += _left_in(group)
    return max(0, min(readings))


def limit_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Memory that this process may have: the machine's, or that of a control group if less.

    Args:
        proc: Where the kernel shows processes.
        cgroups: Where it shows control groups.
    """
    readings = [_UNLIMITED, *_of_machine(proc, "MemTotal")]
    limit = memory_limit_bytes(proc, cgroups)
    return min(readings) if limit is None else min(limit, *readings)


def _of_machine(proc: Path, name: str) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                yield int(line.split()[1]) * 1024


def _left_in(group: Path) -> Iterator[int]:
    """The rest of a group's limit; files' pages count as free, since the kernel can drop them."""
    with suppress(OSError, ValueError, KeyError):
        limit = number_in(group / "memory.max")
        if limit is not None:
            lines = (group / "memory.stat").read_text("ascii").splitlines()
            sizes = {name: int(size) for name, size in map(str.split, lines)}
            used = int((group / "memory.current").read_text("ascii"))
            yield limit - used + sizes["active_file"] + sizes["inactive_file"]
