"""One thing to know about a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

__all__ = ["LEVELS", "Finding", "Level"]

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""From worst to harmless: what does not work, what may hurt, what is good to know."""


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, by which signs, and what to do.

    Attributes:
        level: How bad it is.
        check: Short name, for programs.
        message: What is wrong.
        evidence: What was seen.
        fix: What to do; a command where one does it.
    """

    level: Level
    check: str
    message: str
    evidence: str
    fix: str
