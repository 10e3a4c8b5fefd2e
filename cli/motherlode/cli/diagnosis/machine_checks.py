"""Checks of memory, files and disks."""

from __future__ import annotations

from collections.abc import Iterator

from motherlode.cli.diagnosis.facts import Facts
from motherlode.cli.diagnosis.finding import Finding

__all__ = ["check_disks", "check_memory", "check_open_files", "check_shared_memory"]

_GIB = 2**30
_FEW_FILES = 4096
_LITTLE_MEMORY_BYTES = _GIB
_LITTLE_DISK_BYTES = _GIB
# What Docker gives a container that asks for nothing.
_LITTLE_SHARED_BYTES = 64 * 2**20


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Whether there is little memory, or a container may have less than the machine has."""
    limit = facts.memory_limit_bytes
    usable = facts.memory_bytes if limit is None else min(limit, facts.memory_bytes)
    seen = f"{_gib(usable)} of the machine's {_gib(facts.memory_bytes)}"
    if usable < _LITTLE_MEMORY_BYTES:
        message = "there is little memory: importing torch and FAISS takes some 300 MiB of it"
        fix = "give the machine or the container more; `motherlode inspect` says what a model needs"
        yield Finding("warning", "memory", message, seen, fix)
    elif usable < facts.memory_bytes:
        message = "a container limits memory; what exceeds the limit is killed"
        fix = "leave room for two of the largest model; `motherlode inspect` says what one needs"
        yield Finding("note", "memory-limit", message, seen, fix)


def check_open_files(facts: Facts) -> Iterator[Finding]:
    """Whether a server could have many connections."""
    limit, most = facts.open_files, facts.open_files_most
    if limit is None or limit >= _FEW_FILES:
        return
    seen = f"{limit} open files, may be raised to {'any number' if most is None else most}"
    fix = "LimitNOFILE= of the service, or --ulimit nofile= of the container"
    if most is None or most >= _FEW_FILES:
        fix = f"ulimit -n {65_536 if most is None else min(65_536, most)}, or {fix}"
    message = "a server takes a file for each connection, and few are allowed"
    yield Finding("warning", "open-files", message, seen, fix)


def check_disks(facts: Facts) -> Iterator[Finding]:
    """Whether there is room where Motherlode writes."""
    for disk in facts.disks:
        if disk.free_bytes < _LITTLE_DISK_BYTES:
            yield Finding(
                "warning",
                "disk",
                f"the disk is nearly full where {disk.purpose}",
                f"{disk.path}: {_gib(disk.free_bytes)} of {_gib(disk.total_bytes)} free",
                "free some space; `motherlode train --keep N` removes old versions of a model",
            )


def check_shared_memory(facts: Facts) -> Iterator[Finding]:
    """Whether /dev/shm is as small as a container's by default."""
    size = facts.shared_memory_bytes
    if size is not None and size <= _LITTLE_SHARED_BYTES:
        yield Finding(
            "note",
            "shared-memory",
            "/dev/shm is small; Motherlode does without it, but processes of Ray or of torch's data"
            " loaders fail there",
            f"{size / 2**20:.0f} MiB",
            "start the container with --shm-size=2g if you use them",
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
