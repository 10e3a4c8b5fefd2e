"""What a container may have, as Linux's control groups say it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["container_limits"]

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# The first version of control groups has no word for "no limit" but a number near 2**63.
_NO_LIMIT = 2**60


def container_limits(root: Path = _ROOT, own: Path = _OWN) -> tuple[float | None, int | None]:
    """Cores' worth of CPU time and bytes of memory that this process may have; None for no limit.

    A group's limit holds for all groups below it, so the least on the way up to the root counts.

    Args:
        root: Where control groups are mounted, of version 1 or 2.
        own: The file that names the groups of this process.
    """
    quotas, limits = [], []
    for controllers, folder in _groups(root, own):
        if "cpu" in controllers:
            quotas += [quota for quota in (_quota(folder), _old_quota(folder)) if quota]
        if "memory" in controllers:
            names = ("memory.max", "memory.limit_in_bytes")
            limits += [n for name in names if (n := _number(folder / name)) and n < _NO_LIMIT]
    return min(quotas, default=None), min(limits, default=None)


def _groups(root: Path, own: Path) -> Iterator[tuple[set[str], Path]]:
    """The controllers and the folder of each group that this process is in."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one tree for all; version 1 one for each, named after its controllers.
        names = set(controllers.split(",")) if controllers else {"cpu", "memory"}
        tree = root / controllers if controllers else root
        group = tree / path.lstrip("/")
        # In a container the path may be the host's, and only the root of the tree be visible.
        yield from ((names, folder) for folder in (group, *group.parents) if _within(folder, tree))


def _within(folder: Path, tree: Path) -> bool:
    return folder == tree or tree in folder.parents


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _old_quota(folder: Path) -> float | None:
    quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
