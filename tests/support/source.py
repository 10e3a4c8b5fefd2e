"""The project's own source, as the architecture tests read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("core", "trainer", "scoring", "server", "clients", "cli")


def role_files(role: str) -> list[Path]:
    """The Python files of a role, sorted."""
    return sorted((ROOT / role / "motherlode" / role).rglob("*.py"))


def all_role_files() -> list[Path]:
    """The Python files of all roles."""
    return [path for role in ROLES for path in role_files(role)]


def all_files() -> list[Path]:
    """Every Python file that is written by hand, tests and scripts too."""
    folders = (*ROLES, "tests", "benchmarks", "examples", "deploy")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere in it, with the names it takes from a package."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def relative(path: Path) -> str:
    """A path as it is named in messages."""
    return path.relative_to(ROOT).as_posix()
