"""How much main memory there is to be had, as Linux says it: of the machine and its control groups.

Where nothing says anything, there is no limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# More than any machine has.
_UNLIMITED = 2**63


def available_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Memory that could be had without swapping: the machine's, or a control group's if less.

    Args:
        proc: Where the kernel shows processes.
        cgroups: Where it shows control groups, version 2.
    """
    readings = [_UNLIMITED, *_of_machine(proc, "MemAvailable")]
    for group in _groups(proc, cgroups):
        readings += _left_in(group)
    return max(0, min(readings))


def limit_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Memory that this process may have: the machine's, or that of a control group if less.

    Args:
        proc: Where the kernel shows processes.
        cgroups: Where it shows control groups, version 2, or 1 with this process's at the root.
    """
    readings = [_UNLIMITED, *_of_machine(proc, "MemTotal")]
    for group in _groups(proc, cgroups):
        readings += _number(group / "memory.max")
    # The older version says "no limit" with a huge number.
    readings += _number(cgroups / "memory" / "memory.limit_in_bytes")
    return min(readings)


def _of_machine(proc: Path, name: str) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                yield int(line.split()[1]) * 1024


def _groups(proc: Path, root: Path) -> list[Path]:
    """The folders of the process's own group and all groups above it."""
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                path = Path(os.path.normpath(line.removeprefix("0::/") or "."))
                return [root / one for one in (path, *path.parents) if ".." not in one.parts]
    return []


def _left_in(group: Path) -> Iterator[int]:
    """The rest of a group's limit; files' pages count as free, since the kernel can drop them."""
    with suppress(OSError, ValueError, KeyError):
        for limit in _number(group / "memory.max"):
            lines = (group / "memory.stat").read_text("ascii").splitlines()
            sizes = {name: int(size) for name, size in map(str.split, lines)}
            used = int((group / "memory.current").read_text("ascii"))
            yield limit - used + sizes["active_file"] + sizes["inactive_file"]


def _number(file: Path) -> list[int]:
    """The number in a file; none where it is missing, or has the word `max`."""
    with suppress(OSError, ValueError):
        return [int(file.read_text("ascii"))]
    return []
