from __future__ import annotations

import json

import pytest

from motherlode.cli import doctor as doctor_module
from motherlode.cli import main as main_module
from motherlode.cli.diagnosis import Facts, Finding, LibraryFacts
from motherlode.cli.main import main

ERROR = Finding("error", "python", "it is too old", "Python 3.1", "a newer one")
WARNING = Finding("warning", "disk", "it is full", "0 GiB", "a larger one")
NOTE = Finding("note", "gpu", "there is none", "no driver", "nothing")
FACTS = Facts(
    python=(3, 12, 1),
    implementation="cpython",
    platform="linux",
    is_64_bit=True,
    optimize=0,
    environment={},
    packages={"motherlode": "0.1.0"},
    requirements=(),
    faiss_owners=(),
    faiss_foreign_files=(),
    libraries=LibraryFacts(torch_version="2.13.0"),
    cores=8,
    allowed_cores=4,
    cpu_quota=None,
    memory_bytes=2**33,
    memory_limit_bytes=None,
    open_files=None,
    open_files_most=None,
)


@pytest.fixture
def arrange(monkeypatch):
    """Makes the diagnosis find what it is given."""
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)
    monkeypatch.setattr(doctor_module, "gather_facts", lambda _: FACTS)

    def arrange(*findings: Finding) -> None:
        monkeypatch.setattr(doctor_module, "diagnose", lambda _: list(findings))

    return arrange


@pytest.mark.parametrize(
    ("findings", "status", "word"),
    [
        ([], 0, "ok"),
        ([NOTE], 0, "ok"),
        ([WARNING, NOTE], 0, "warning"),
        ([ERROR, WARNING], 4, "error"),
    ],
)
def test_an_error_alone_makes_the_exit_status_four(arrange, capsys, findings, status, word):
    arrange(*findings)
    assert main(["doctor"]) == status
    capsys.readouterr()
    assert main(["doctor", "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == word
    assert [found["check"] for found in document["findings"]] == [f.check for f in findings]
    assert document["facts"]["cores"] == 8


def test_each_finding_is_shown_with_evidence_and_fix(arrange, capsys):
    arrange(ERROR, NOTE)
    main(["doctor"])
    assert capsys.readouterr().out == (
        "Motherlode 0.1.0, Python 3.12.1, torch 2.13.0, FAISS missing,"
        " 4 of 8 cores, 8 GiB, 0 GPUs\n"
        "\n"
        "error: it is too old\n"
        "    found  Python 3.1\n"
        "    fix    a newer one\n"
        "\n"
        "note: there is none\n"
        "    found  no driver\n"
        "    fix    nothing\n"
        "\n"
        "1 error, 0 warnings\n"
    )


def test_nothing_wrong_is_said(arrange, capsys):
    arrange(NOTE)
    main(["doctor"])
    assert capsys.readouterr().out.endswith("\n\nnothing is wrong\n")
