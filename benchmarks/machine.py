"""What every benchmark prints beside its figures: the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_STAT = Path("/proc/stat")

PACKAGES = ("motherlode", "torch", "faiss-cpu", "faiss-gpu", "numpy", "grpcio")


def _processor_ticks() -> tuple[int, int]:
    """Time of all cores so far, and the part of it that other machines on the same host had."""
    if not _STAT.exists():
        return 0, 0
    times = list(map(int, _STAT.read_text("ascii").split("\n", 1)[0].split()[1:9]))
    return sum(times), times[7]


_AT_START = _processor_ticks()


def stolen_share() -> float:
    """Share, 0 to 1, of the cores' time since this was imported that other machines had."""
    total, stolen = (now - then for now, then in zip(_processor_ticks(), _AT_START, strict=True))
    return stolen / total if total else 0.0


def machine() -> dict[str, object]:
    """Processor, cores, memory, how busy it is, and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text("utf8").splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "stolen": round(stolen_share(), 3),
        "python": platform.python_version(),
        **dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    """Of the packages that are installed."""
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def peak_gib() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def print_result(name: str, columns: list[str], rows: list[list[object]]) -> None:
    """A Markdown table for people with how calm the machine was, then a JSON line for programs."""
    print(f"\n## {name}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(f"\nload {os.getloadavg()[0]:.1f}, {stolen_share():.1%} of the cores' time had others")
    document = {"benchmark": name, "machine": machine(), "columns": columns, "rows": rows}
    print("\n" + json.dumps(document), flush=True)
