"""`motherlode doctor`: what is wrong on this machine, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from motherlode.cli.diagnosis import Facts, Finding, diagnose, gather_facts
from motherlode.cli.output import print_json, print_line

__all__ = ["doctor"]

ENVIRONMENT = 4


def doctor(
    *, repository: Path | None = None, json: Annotated[bool, Parameter(negative=())] = False
) -> int:
    """Find what is wrong on this machine, with the signs of it and what to do.

    Looks at Python, packages (two builds of FAISS, versions), threads and OpenMP runtimes, limits
    of a container, open files, disks, and GPUs with the builds for them. A process of its own
    imports torch and FAISS, so that it takes some seconds.

    Errors keep something from working, and make the exit status 4. Warnings may cost time or
    memory, notes are good to know; with them it is 0.

    Args:
        repository: Folder of the published models; its disk is looked at, too.
        json: Print one JSON document, with all that was looked at.
    """
    facts = gather_facts(repository)
    findings = diagnose(facts)
    if json:
        print_json({"status": _status(findings), "findings": findings, "facts": facts})
    else:
        _print(facts, findings)
    return ENVIRONMENT if _status(findings) == "error" else 0


def _status(findings: list[Finding]) -> str:
    """The worst level, findings being in that order; `ok` where there are notes at most."""
    return findings[0].level if findings and findings[0].level != "note" else "ok"


def _print(facts: Facts, findings: list[Finding]) -> None:
    print_line(_summary(facts))
    for finding in findings:
        print_line()
        print_line(f"{finding.level}: {finding.message}")
        print_line(f"    found  {finding.evidence}")
        print_line(f"    fix    {finding.fix}")
    print_line()
    counts = {level: [f.level for f in findings].count(level) for level in ("error", "warning")}
    told = ", ".join(f"{n} {level}{'' if n == 1 else 's'}" for level, n in counts.items())
    print_line(told if any(counts.values()) else "nothing is wrong")


def _summary(facts: Facts) -> str:
    libraries = facts.libraries
    parts = [
        f"Motherlode {facts.packages.get('motherlode', '(not installed as a package)')}",
        f"Python {'.'.join(map(str, facts.python))}",
        f"torch {libraries.torch_version or 'missing'}",
        f"FAISS {libraries.faiss_version or 'missing'}",
        f"{facts.usable_cores} of {facts.cores} cores",
        f"{facts.memory_bytes / 2**30:.0f} GiB",
        f"{len(libraries.gpus)} GPUs",
    ]
    return ", ".join(parts)
