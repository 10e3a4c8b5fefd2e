"""All checks, in the order of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from motherlode.cli.diagnosis.facts import Facts
from motherlode.cli.diagnosis.finding import LEVELS, Finding
from motherlode.cli.diagnosis.gpu_checks import (
    check_cuda_runtimes,
    check_faiss_gpu,
    check_gpus,
    check_torch_architectures,
    check_torch_gpu,
)
from motherlode.cli.diagnosis.machine_checks import (
    check_disks,
    check_memory,
    check_open_files,
    check_shared_memory,
)
from motherlode.cli.diagnosis.package_checks import (
    check_faiss_files,
    check_faiss_packages,
    check_libraries,
    check_optimize,
    check_python,
    check_versions,
)
from motherlode.cli.diagnosis.thread_checks import (
    check_cpu_limit,
    check_openmp_runtimes,
    check_thread_conflict,
    check_thread_variables,
    check_threads,
)

__all__ = ["CHECKS", "Check", "diagnose"]

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_python,
    check_optimize,
    check_faiss_packages,
    check_faiss_files,
    check_versions,
    check_libraries,
    check_openmp_runtimes,
    check_thread_variables,
    check_thread_conflict,
    check_threads,
    check_cpu_limit,
    check_memory,
    check_open_files,
    check_disks,
    check_shared_memory,
    check_gpus,
    check_torch_gpu,
    check_torch_architectures,
    check_faiss_gpu,
    check_cuda_runtimes,
)


def diagnose(facts: Facts) -> list[Finding]:
    """What the checks find, the worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
