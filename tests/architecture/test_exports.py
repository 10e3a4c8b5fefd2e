from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.source import all_role_files, relative, tree_of

PACKAGES = [path for path in all_role_files() if path.name == "__init__.py"]


def exported_names(path: Path) -> list[str] | None:
    """The literal `__all__` of a file; None if it has none."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def bound_names(path: Path) -> set[str]:
    """Names that a file defines or imports at its top level."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def reexported_names(path: Path) -> set[str]:
    """Public names that a package takes from its own modules."""
    return {
        alias.asname or alias.name
        for node in tree_of(path).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("motherlode.")
        for alias in node.names
        if not alias.name.startswith("_")
    }


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("path", PACKAGES, ids=relative)
def test_a_package_exports_exactly_the_names_it_takes_from_its_modules(path):
    assert sorted(reexported_names(path) - set(exported_names(path) or [])) == []


def test_exported_names_are_sorted_and_unique():
    wrong = [
        relative(path)
        for path in all_role_files()
        if (names := exported_names(path)) is not None and names != sorted(set(names), key=order)
    ]
    assert wrong == []


def test_exported_names_exist():
    missing = [
        f"{relative(path)}: {name}"
        for path in all_role_files()
        for name in exported_names(path) or []
        if name not in bound_names(path)
    ]
    assert missing == []


def test_the_clients_export_what_users_need():
    import motherlode.clients

    for name in motherlode.clients.__all__:
        assert getattr(motherlode.clients, name) is not None
    assert {"AsyncClient", "Client", "ClientError", "TopKResult"} <= set(motherlode.clients.__all__)
