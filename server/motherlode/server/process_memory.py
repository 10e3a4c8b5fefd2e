"""What the process takes of the memory that it may have."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


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
