"""Checks of Python and of the packages that are installed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from motherlode.cli.diagnosis.facts import Facts
from motherlode.cli.diagnosis.finding import Finding

__all__ = [
    "check_faiss_files",
    "check_faiss_packages",
    "check_libraries",
    "check_optimize",
    "check_python",
    "check_versions",
]

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
_OFFICIAL_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?")
_BOUND = re.compile(r"(>=|<)\s*([0-9]+(?:\.[0-9]+)*)")
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_SHOWN_FILES = 4
_INSTALL = "pip install 'motherlode[cpu]' (or [gpu], or [cuvs])"


def check_python(facts: Facts) -> Iterator[Finding]:
    """The version of Python, its make and the system it runs on."""
    version = ".".join(map(str, facts.python))
    seen = f"{facts.implementation} {version} on {facts.platform}"
    if facts.python[:2] < _OLDEST_PYTHON:
        fix = "make a virtual environment with Python 3.11 or newer, and install Motherlode there"
        yield Finding("error", "python", "this Python is too old", seen, fix)
    elif facts.python[:2] > _NEWEST_PYTHON:
        fix = "use Python 3.11 to 3.13 if anything fails"
        yield Finding("note", "python", "Motherlode has not been tried on this Python", seen, fix)
    if not facts.is_64_bit:
        fix = "use a 64-bit Python: torch and FAISS have no other wheels"
        yield Finding("error", "python", "this is a 32-bit Python", seen, fix)
    if facts.implementation != "cpython" or facts.platform != "linux":
        fix = "use CPython on Linux"
        yield Finding("warning", "python", "only CPython on Linux has been tried", seen, fix)


def check_optimize(facts: Facts) -> Iterator[Finding]:
    """Whether assertions are switched off."""
    if not facts.optimize:
        return
    variable = facts.environment.get("PYTHONOPTIMIZE")
    seen = f"PYTHONOPTIMIZE={variable}" if variable else f"python -{'O' * facts.optimize}"
    yield Finding(
        "warning",
        "python-optimize",
        "assertions are off: FAISS then searches with queries of a wrong width, and gives labels"
        " that look right. Motherlode checks queries itself, other code in the process may not",
        seen,
        "unset PYTHONOPTIMIZE" if variable else "start Python without -O",
    )


def check_faiss_packages(facts: Facts) -> Iterator[Finding]:
    """Whether exactly one package installed FAISS."""
    owners = facts.faiss_owners
    seen = ", ".join(f"{name} {facts.packages.get(name, '?')}" for name in owners)
    check = "faiss-packages"
    if len(owners) > 1:
        yield Finding(
            "error",
            check,
            "several packages install the module faiss, and overwrite each other's files",
            seen,
            f"pip uninstall -y {' '.join(owners)}; {_INSTALL}",
        )
    elif not owners and facts.libraries.faiss_version is None:
        yield from _missing_faiss(facts)
    for name in owners:
        if name not in _OFFICIAL_FAISS:
            fix = f"pip uninstall -y {name}; pip install 'motherlode[gpu]'"
            message = "this build of FAISS is not the project's own; such builds lack newer GPUs"
            yield Finding("warning", check, message, f"{name} {facts.packages.get(name, '?')}", fix)


def _missing_faiss(facts: Facts) -> Iterator[Finding]:
    fix = _INSTALL
    if "torch" in facts.packages:
        message = "no package installs the module faiss: nothing can be trained, scored or served"
        yield Finding("error", "faiss-packages", message, "torch is there, FAISS is not", fix)
    else:
        message = "only the Python clients, `query` and `doctor` work here"
        yield Finding("note", "faiss-packages", message, "neither torch nor FAISS is there", fix)


def check_faiss_files(facts: Facts) -> Iterator[Finding]:
    """Whether the files of FAISS are those of its package."""
    files = facts.faiss_foreign_files
    if not files or len(facts.faiss_owners) > 1:
        return
    more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    names = " ".join(facts.faiss_owners)
    yield Finding(
        "error",
        "faiss-files",
        "files of the module faiss are not those of the package that is installed: another FAISS"
        " was installed or removed over it",
        ", ".join(files[:_SHOWN_FILES]) + more,
        f"pip uninstall -y {names}; remove what is left of the folder faiss in site-packages;"
        f" pip install {names}",
    )


def check_versions(facts: Facts) -> Iterator[Finding]:
    """Whether the installed packages are of versions that Motherlode takes."""
    seen: set[str] = set()
    for requirement in facts.requirements:
        name, bounds = _parse(requirement)
        version = facts.packages.get(name)
        if name in seen or version is None:
            continue
        seen.add(name)
        wrong = next((b for b in bounds if not _holds(version, *b)), None)
        if wrong is None:
            continue
        wanted = ",".join(operator + bound for operator, bound in bounds)
        is_old = wrong[0] == ">="
        yield Finding(
            "error" if is_old else "warning",
            "versions",
            f"{name} is {'too old' if is_old else 'newer than what has been tried'}",
            f"{name} {version}, expected {wanted}",
            f"pip install '{name}{wanted}'",
        )


def check_libraries(facts: Facts) -> Iterator[Finding]:
    """Whether torch and FAISS can be imported, if they are installed."""
    libraries = facts.libraries
    if libraries.crash is not None:
        fix = "reinstall both into a new virtual environment: pip install 'motherlode[cpu]'"
        message = "importing torch and FAISS ends the process"
        yield Finding("error", "imports", message, libraries.crash, fix)
    is_installed = {"torch": "torch" in facts.packages, "faiss": bool(facts.faiss_owners)}
    for name, error in (("torch", libraries.torch_error), ("faiss", libraries.faiss_error)):
        if error is not None and is_installed[name]:
            fix = "reinstall it into a new virtual environment: pip install 'motherlode[cpu]'"
            message = f"{name} is installed, but cannot be imported"
            yield Finding("error", "imports", message, error, fix)


def _parse(requirement: str) -> tuple[str, list[tuple[str, str]]]:
    """The normalised name and the bounds of a requirement; none of what only developers need."""
    match = _REQUIREMENT.match(requirement)
    if match is None or "'dev'" in (match[3] or "").replace('"', "'"):
        return "", []
    name = re.sub(r"[-_.]+", "-", match[1]).lower()
    bounds: list[tuple[str, str]] = sorted(_BOUND.findall(match[2]), reverse=True)
    return name, bounds


def _holds(version: str, operator: str, bound: str) -> bool:
    is_from = _release(version) >= _release(bound)
    return is_from if operator == ">=" else not is_from


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version without trailing zeros, so that 2.13 is 2.13.0."""
    match = _RELEASE.match(version)
    numbers = [] if match is None else [int(part) for part in match[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
