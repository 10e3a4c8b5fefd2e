from __future__ import annotations

import ast
import re

import pytest

from tests.support.source import ROOT, all_role_files, relative, tree_of

CONTRACTS = ROOT / "tests" / "contract"


def abstract_classes() -> dict[str, str]:
    """Every class under `motherlode` that names ABC as a base, with its file."""
    return {
        node.name: relative(path)
        for path in all_role_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and any(getattr(base, "id", getattr(base, "attr", "")) == "ABC" for base in node.bases)
    }


def suite_of(name: str) -> str:
    """LabelIndex -> test_label_index.py."""
    return f"test_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower()}.py"


def test_there_are_abstract_classes_to_look_at():
    assert "Featurizer" in abstract_classes()


@pytest.mark.parametrize("name", abstract_classes())
def test_every_abstract_class_has_a_contract_suite(name):
    suite = CONTRACTS / suite_of(name)
    assert suite.is_file(), f"{abstract_classes()[name]}: {name} needs tests/contract/{suite.name}"
    assert "def test_" in suite.read_text(encoding="utf-8")
