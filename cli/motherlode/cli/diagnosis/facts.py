"""What is looked at of a machine: values alone, so that checks can be tested with made-up ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

__all__ = ["ENVIRONMENT", "Disk", "Facts", "Gpu", "LibraryFacts"]

ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "KMP_DUPLICATE_LIB_OK",
    "MKL_NUM_THREADS",
    "MOTHERLODE_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONOPTIMIZE",
)
"""Variables that matter; no other is looked at."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system.

    Attributes:
        path: A folder on it.
        purpose: What Motherlode writes there.
        total_bytes: Its size.
        free_bytes: What is free for this user.
    """

    path: Path
    purpose: str
    total_bytes: int
    free_bytes: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as torch sees it.

    Attributes:
        name: What its maker calls it.
        capability: Its architecture: (9, 0) is sm_90.
    """

    name: str
    capability: tuple[int, int]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFacts:
    """What a process of its own says that has imported torch and FAISS.

    Attributes:
        crash: Why that process did not come to its end; None if it did.
        torch_error: Why torch cannot be imported; None if it can.
        torch_version: As torch says it.
        torch_cuda: CUDA version that torch was built for; None for a CPU build.
        torch_arches: GPU architectures that torch was built for, such as `sm_90`, `compute_90`.
        torch_threads: Threads of one operation.
        faiss_error: Why FAISS cannot be imported; None if it can.
        faiss_version: As FAISS says it.
        faiss_options: What it was built with.
        faiss_has_gpu: Whether it is a GPU build.
        faiss_gpus: GPUs that it can use.
        faiss_threads: OpenMP threads of one search.
        gpus: GPUs that torch can use.
        openmp: Paths of the OpenMP runtimes in the process.
        cuda_runtimes: Paths of the CUDA runtimes in the process.
    """

    crash: str | None = None
    torch_error: str | None = None
    torch_version: str | None = None
    torch_cuda: str | None = None
    torch_arches: tuple[str, ...] = ()
    torch_threads: int | None = None
    faiss_error: str | None = None
    faiss_version: str | None = None
    faiss_options: str = ""
    faiss_has_gpu: bool = False
    faiss_gpus: int = 0
    faiss_threads: int | None = None
    gpus: tuple[Gpu, ...] = ()
    openmp: tuple[str, ...] = ()
    cuda_runtimes: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the checks judge.

    Attributes:
        python: Version of Python.
        implementation: `cpython`, say.
        platform: `linux`, say.
        is_64_bit: Whether this is a 64-bit Python.
        optimize: How often `-O` was given.
        environment: The variables of `ENVIRONMENT` that are set.
        packages: Versions of the installed packages, by normalised name.
        requirements: What Motherlode's own metadata requires, in the form of PEP 508.
        faiss_owners: Packages that installed a module `faiss`.
        faiss_foreign_files: Files of that module that are missing, or not as their package
            installed them, or of no package.
        libraries: What torch and FAISS say of themselves.
        cores: Cores of the machine.
        allowed_cores: Cores that this process may run on.
        cpu_quota: Cores' worth of time that a container may have; None if there is no limit.
        memory_bytes: RAM of the machine.
        memory_limit_bytes: RAM that a container may have; None if there is no limit.
        open_files: Files and connections that a process may have open; None if there is no limit.
        open_files_most: What that may be raised to without being root; None if there is no limit.
        disks: File systems that are written to.
        shared_memory_bytes: Size of /dev/shm; None if there is none.
        gpu_devices: NVIDIA GPUs that the system shows to this process.
        gpu_driver: Version of the NVIDIA driver; None if there is none.
    """

    python: tuple[int, int, int]
    implementation: str
    platform: str
    is_64_bit: bool
    optimize: int
    environment: Mapping[str, str]
    packages: Mapping[str, str]
    requirements: tuple[str, ...]
    faiss_owners: tuple[str, ...]
    faiss_foreign_files: tuple[str, ...]
    libraries: LibraryFacts
    cores: int
    allowed_cores: int
    cpu_quota: float | None
    memory_bytes: int
    memory_limit_bytes: int | None
    open_files: int | None
    open_files_most: int | None
    disks: tuple[Disk, ...] = field(default=())
    shared_memory_bytes: int | None = None
    gpu_devices: int = 0
    gpu_driver: str | None = None

    @property
    def usable_cores(self) -> int:
        """Threads that can run at the same time, at least 1."""
        quota = self.allowed_cores if self.cpu_quota is None else -int(-self.cpu_quota // 1)
        return max(1, min(self.allowed_cores, quota))
