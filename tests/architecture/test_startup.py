"""What a command imports before it has anything to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"faiss", "grpc", "matplotlib", "numpy", "pyarrow", "pydantic", "scipy", "torch"}


def modules_after(code: str) -> set[str]:
    """All modules of a fresh process that ran the code."""
    program = f"import sys\n{code}\nsys.stderr.write('\\nMODULES ' + ' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stderr.rpartition("MODULES ")[2].split())


_COMMANDS = ("query", "admin", "health", "bench", "diff", "doctor")
LIGHT = [["--help"], *([name, "--help"] for name in _COMMANDS)]


@pytest.mark.parametrize("arguments", [*LIGHT, ["--version"], ["qery"]])
def test_help_imports_nothing_heavy(arguments):
    modules = modules_after(f"from motherlode.cli.main import main; main({arguments})")
    assert "motherlode.cli.main" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("arguments", LIGHT)
def test_help_imports_no_other_role(arguments):
    modules = modules_after(f"from motherlode.cli.main import main; main({arguments})")
    roles = {name.split(".")[1] for name in modules if name.startswith("motherlode.")}
    assert roles == {"cli"}


def test_the_clients_import_neither_torch_nor_faiss_nor_core():
    modules = modules_after("import motherlode.clients")
    assert modules & {"faiss", "torch", "scipy", "pyarrow", "pydantic"} == set()
    roles = {name.split(".")[1] for name in modules if name.startswith("motherlode.")}
    assert roles == {"clients", "v1"}


def test_a_query_needs_neither_torch_nor_faiss():
    call = "main(['query', '--target', '127.0.0.1:1', '--text', 'a', '--timeout-s', '5'])"
    modules = modules_after(f"from motherlode.cli.main import main; {call}")
    assert "motherlode.clients" in modules
    assert modules & {"faiss", "torch", "scipy", "pyarrow", "pydantic"} == set()


def test_a_load_needs_neither_torch_nor_faiss(tmp_path):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"text": "a"}', encoding="utf-8")
    call = f"main(['bench', '--target', '127.0.0.1:1', '--queries', {str(queries)!r}])"
    modules = modules_after(f"from motherlode.cli.main import main; {call}")
    assert "motherlode.clients.load" in modules
    assert modules & {"faiss", "matplotlib", "torch", "scipy"} == set()


def test_a_diagnosis_imports_nothing_heavy_into_its_own_process():
    modules = modules_after("import motherlode.cli.doctor")
    assert "motherlode.cli.diagnosis" in modules
    assert modules & HEAVY == set()
