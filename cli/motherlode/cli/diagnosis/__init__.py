"""What `motherlode doctor` looks at: facts are gathered first, then judged by pure functions."""

from __future__ import annotations

from motherlode.cli.diagnosis.checks import diagnose
from motherlode.cli.diagnosis.facts import Disk, Facts, Gpu, LibraryFacts
from motherlode.cli.diagnosis.finding import Finding, Level
from motherlode.cli.diagnosis.gathering import gather_facts

__all__ = [
    "Disk",
    "Facts",
    "Finding",
    "Gpu",
    "Level",
    "LibraryFacts",
    "diagnose",
    "gather_facts",
]
