from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions

import pytest

from tests.support.source import ROLES, ROOT, all_files, relative, tree_of

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@pytest.mark.parametrize("portion", [*ROLES, "protos"])
def test_no_portion_of_the_namespace_package_claims_it_for_itself(portion):
    # With an __init__.py in one of them, Python would not look into the others.
    assert (ROOT / portion / "motherlode").is_dir()
    assert not (ROOT / portion / "motherlode" / "__init__.py").exists()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_a_package_with_a_sentence_about_itself(role):
    init = ROOT / role / "motherlode" / role / "__init__.py"
    assert ast.get_docstring(tree_of(init))


def test_every_folder_of_a_role_is_a_package():
    folders = {
        path.parent for role in ROLES for path in (ROOT / role / "motherlode" / role).rglob("*.py")
    }
    assert [relative(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_no_script_hides_a_module_that_a_dependency_imports(folder):
    # A script's folder comes first on its path. Torch imports triton wherever it finds one.
    modules = {*sys.stdlib_module_names, *packages_distributions(), "triton"}
    assert {path.stem for path in (ROOT / folder).glob("*.py")} & modules == set()


def test_no_file_is_too_long_to_read_at_once():
    lengths = {relative(path): len(path.read_bytes().splitlines()) for path in all_files()}
    assert {name: n for name, n in lengths.items() if n >= MAX_FILE_LINES} == {}


def test_no_function_is_too_long_to_read_at_once():
    too_long = {
        f"{relative(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in all_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 >= MAX_FUNCTION_LINES
    }
    assert too_long == {}
