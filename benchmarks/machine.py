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

PACKAGES = ("motherlode", "torch", "faiss-cpu", "faiss-gpu", "numpy", "grpcio")


def machine() -> dict[str, object]:
    """Processor, cores, memory and versions."""
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
    """A Markdown table for people, then one JSON line for programs."""
    print(f"\n## {name}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    document = {"benchmark": name, "machine": machine(), "columns": columns, "rows": rows}
    print("\n" + json.dumps(document), flush=True)
