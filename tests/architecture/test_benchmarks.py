"""Benchmarks run rarely, so what they import is looked at here."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def imported_names(script: Path) -> Iterator[tuple[str, str]]:
    """Modules and names of each `from MODULE import NAME`."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name) for alias in node.names)


def names_of(script: Path) -> set[str]:
    """Names that stand at the top of a script."""
    names: set[str] = set()
    for node in ast.parse(script.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def is_module(package: str, name: str) -> bool:
    """Whether a package has a module of this name."""
    return importlib.util.find_spec(f"{package}.{name}") is not None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_what_a_benchmark_imports_of_others_and_of_the_product_is_there(script: Path) -> None:
    missing = []
    for module, name in imported_names(script):
        neighbour = FOLDER / f"{module}.py"
        if neighbour.exists():
            is_there = name in names_of(neighbour)
        elif module.partition(".")[0] in {"motherlode", "tests"}:
            is_there = hasattr(importlib.import_module(module), name) or is_module(module, name)
        else:
            is_there = importlib.util.find_spec(module.partition(".")[0]) is not None
        if not is_there and module.partition(".")[0] not in RIVALS:
            missing.append(f"{module}.{name}")
    assert missing == []


# Installed where they are measured.
RIVALS = {"hnswlib", "pecos", "scann", "usearch"}
