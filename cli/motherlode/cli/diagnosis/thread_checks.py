"""Checks of threads: how many there are, and who starts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from motherlode.cli.diagnosis.facts import Facts
from motherlode.cli.diagnosis.finding import Finding

__all__ = [
    "check_cpu_limit",
    "check_openmp_runtimes",
    "check_thread_conflict",
    "check_thread_variables",
    "check_threads",
]

_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MOTHERLODE_NUM_THREADS",
)
_FAMILY = re.compile(r"lib(gomp|iomp5|omp)\b")


def check_thread_variables(facts: Facts) -> Iterator[Finding]:
    """Whether the variables hold numbers of threads that there are cores for."""
    for name, value in _set_variables(facts):
        seen = f"{name}={value}"
        # OpenMP takes a number for each level of nesting; the first is what matters here.
        first = value.partition(",")[0].strip()
        if not first.isascii() or not first.isdecimal() or int(first) == 0:
            fix = f"export {name}={facts.usable_cores}, or unset it"
            yield Finding("warning", "threads", f"{name} is no number of threads", seen, fix)
        elif int(first) > facts.usable_cores:
            message = f"{name} asks for more threads than this process has cores"
            seen = f"{seen}, {_cores(facts)}"
            fix = f"export {name}={facts.usable_cores}, or unset it"
            yield Finding("warning", "threads", message, seen, fix)


def check_thread_conflict(facts: Facts) -> Iterator[Finding]:
    """Whether the variables of OpenMP and MKL agree."""
    values = dict(_set_variables(facts))
    openmp, mkl = values.get("OMP_NUM_THREADS"), values.get("MKL_NUM_THREADS")
    if openmp is not None and mkl is not None and openmp != mkl:
        yield Finding(
            "warning",
            "threads",
            "two variables disagree about the number of threads: MKL's decides for matrix products"
            " of torch, the other for all else",
            f"OMP_NUM_THREADS={openmp}, MKL_NUM_THREADS={mkl}",
            "unset MKL_NUM_THREADS",
        )


def check_threads(facts: Facts) -> Iterator[Finding]:
    """Whether torch and FAISS would start more threads than there are cores."""
    libraries = facts.libraries
    threads = {"torch": libraries.torch_threads, "FAISS": libraries.faiss_threads}
    many = {name: n for name, n in threads.items() if n is not None and n > facts.usable_cores}
    # What a variable asks for is found by the check of the variables.
    if many and "OMP_NUM_THREADS" not in facts.environment:
        seen = ", ".join(f"{name} {n} threads" for name, n in many.items())
        yield Finding(
            "warning",
            "threads",
            "torch and FAISS would use more threads than this process has cores, and wait for each"
            " other",
            f"{seen}; {_cores(facts)}",
            f"export OMP_NUM_THREADS={facts.usable_cores}",
        )


def check_cpu_limit(facts: Facts) -> Iterator[Finding]:
    """Whether this process may use fewer cores than the machine has."""
    if facts.usable_cores < facts.cores:
        message = "this process may not use all cores of the machine"
        fix = "give the container more CPU time if that is not meant"
        yield Finding("note", "cpu-limit", message, _cores(facts), fix)


def check_openmp_runtimes(facts: Facts) -> Iterator[Finding]:
    """Whether several OpenMP runtimes are in the process once torch and FAISS are imported."""
    paths = facts.libraries.openmp
    families = {found[1] for path in paths if (found := _FAMILY.match(PurePath(path).name))}
    if len(families) > 1:
        yield Finding(
            "warning",
            "openmp",
            "OpenMP runtimes of different makers are in one process: each has threads of its own,"
            " and some pairs hang or end the process",
            ", ".join(paths),
            "install torch and FAISS from the same place: both with pip, or both with conda",
        )
    elif len(paths) > 1:
        yield Finding(
            "note",
            "openmp",
            f"{len(paths)} copies of one OpenMP runtime are in the process, as wheels bring them:"
            " each has threads of its own",
            ", ".join(paths),
            "nothing, unless the machine is crowded: then set OMP_NUM_THREADS lower",
        )
    if facts.environment.get("KMP_DUPLICATE_LIB_OK"):
        message = "a second Intel OpenMP runtime is tolerated, which may give wrong results"
        seen = f"KMP_DUPLICATE_LIB_OK={facts.environment['KMP_DUPLICATE_LIB_OK']}"
        yield Finding("warning", "openmp", message, seen, "unset KMP_DUPLICATE_LIB_OK")


def _set_variables(facts: Facts) -> Iterator[tuple[str, str]]:
    for name in _VARIABLES:
        if value := facts.environment.get(name):
            yield name, value


def _cores(facts: Facts) -> str:
    told = f"{facts.usable_cores} of {facts.cores} cores"
    return told if facts.cpu_quota is None else f"{told}, a CPU quota of {facts.cpu_quota:g}"
