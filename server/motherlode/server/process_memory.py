"""What the process takes of the memory that it may have."""

from __future__ import annotations

import os
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def anonymous_bytes(status: Path = _STATUS) -> float:
    """Memory of this process that no file backs, so that it cannot be dropped; 0 if unknown.

    Mapped bundles are not in it: the system takes their pages back when it needs them.
    """
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    for line in lines:
        if line.startswith("RssAnon:"):
            return 1024.0 * int(line.split()[1])
    return 0.0


def limit_bytes(limits: tuple[Path, ...] = _CGROUP_LIMITS) -> float:
    """Memory that this process may have: the container's limit, or the machine's memory."""
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in limits:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        # "max" means no limit, and the older file says that with a huge number.
        return min(machine, float(text)) if text.isdigit() else machine
    return machine
