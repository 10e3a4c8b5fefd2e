"""Looks at this machine. Judges nothing, and raises nothing for what is missing."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from motherlode.cli.diagnosis.facts import ENVIRONMENT, Disk, Facts
from motherlode.cli.diagnosis.probing import probe_libraries

__all__ = ["faiss_foreign_files", "gather_facts", "owners_of"]

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_DRIVER = re.compile(r"Kernel Module\s+(?:for \S+\s+)?([0-9.]+)")


def gather_facts(repository: Path | None = None) -> Facts:
    """The facts of this machine, this Python and the process's limits.

    Takes some seconds: a process of its own imports torch and FAISS.

    Args:
        repository: A folder of models, whose disk is looked at too.
    """
    from motherlode.core.control_groups import cpu_quota, memory_limit_bytes  # noqa: PLC0415

    # Of two versions on the path the first is the one that Python imports.
    packages = {name: found.version for name, found in reversed(list(_distributions()))}
    owners = owners_of("faiss")
    soft, hard = map(_limit, resource.getrlimit(resource.RLIMIT_NOFILE))
    return Facts(
        python=sys.version_info[:3],
        implementation=sys.implementation.name,
        platform=sys.platform,
        is_64_bit=sys.maxsize > 2**32,
        optimize=sys.flags.optimize,
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        packages=packages,
        requirements=tuple(_requirements()),
        faiss_owners=owners,
        faiss_foreign_files=tuple(faiss_foreign_files(owners, Path(sysconfig.get_path("purelib")))),
        libraries=probe_libraries(),
        cores=os.cpu_count() or 1,
        allowed_cores=len(os.sched_getaffinity(0)),
        cpu_quota=cpu_quota(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        memory_limit_bytes=memory_limit_bytes(),
        open_files=soft,
        open_files_most=hard,
        disks=tuple(_disks(repository)),
        shared_memory_bytes=_shared_memory_bytes(),
        gpu_devices=len(list(Path("/dev").glob("nvidia[0-9]*"))),
        gpu_driver=_driver(),
    )


def owners_of(module: str) -> tuple[str, ...]:
    """Normalised names of the installed packages that have files in a module's folder; sorted."""
    return tuple(sorted({name for name, found in _distributions() if _has(found, module)}))


def faiss_foreign_files(owners: tuple[str, ...], site_packages: Path) -> Iterator[str]:
    """Files of the module faiss that are not as a package installed them, below `site_packages`.

    Yields:
        Names of files that are missing, have another size than their package says, or are libraries
        that no package says to be its own.
    """
    known: set[Path] = set()
    for name in owners:
        for file in metadata.distribution(name).files or ():
            if file.parts[0] != "faiss" or file.suffix == ".pyc":
                continue
            path = Path(str(file.locate()))
            known.add(path.resolve())
            size = path.stat().st_size if path.exists() else None
            if size is None or (file.size is not None and size != file.size):
                yield str(file)
    for path in sorted((site_packages / "faiss").glob("*.so")):
        if path.resolve() not in known:
            yield str(path.relative_to(site_packages))


def _distributions() -> Iterator[tuple[str, metadata.Distribution]]:
    """Installed packages by normalised name; what a broken installation left has no name."""
    for found in metadata.distributions():
        if "Name" in found.metadata:
            yield _normalised(found.metadata["Name"]), found


def _has(distribution: metadata.Distribution, module: str) -> bool:
    return any(file.parts[0] == module for file in distribution.files or ())


def _requirements() -> list[str]:
    try:
        return metadata.requires("motherlode") or []
    except metadata.PackageNotFoundError:
        return []


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _limit(number: int) -> int | None:
    return None if number == resource.RLIM_INFINITY else number


def _disks(repository: Path | None) -> Iterator[Disk]:
    folders = [(Path(tempfile.gettempdir()), "temporary files are written")]
    if repository is not None and repository.is_dir():
        folders.append((repository, "models are published"))
    for path, purpose in folders:
        usage = shutil.disk_usage(path)
        yield Disk(path=path, purpose=purpose, total_bytes=usage.total, free_bytes=usage.free)


def _shared_memory_bytes() -> int | None:
    path = Path("/dev/shm")
    return shutil.disk_usage(path).total if path.is_dir() else None


def _driver() -> str | None:
    try:
        found = _DRIVER.search(_DRIVER_FILE.read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else found[1]
