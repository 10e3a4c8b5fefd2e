"""`motherlode tune` in this process: what it prints, and how it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.core.index import tuning as tuning_module
from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny, tiny_draft
from tests.support.embeddings import unit


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_module, "_TIMING_S", 1e-3)


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`tiny` with a sample of queries, and `bare` without one."""
    draft = tiny_draft(num_labels=60)
    sample_BD = unit(np.random.default_rng(0).standard_normal((120, draft.dimensions.width)))
    Repository(tmp_path).publish("tiny", replace(draft, query_sample_BD=sample_BD))
    publish_tiny(tmp_path, "bare", num_labels=60)
    return tmp_path


def tune(repository: Path, *arguments: str, model: str = "tiny") -> int:
    return main(["tune", "--repository", str(repository), "--model", model, *arguments])


def test_the_table_has_a_row_for_each_setting_and_marks_the_chosen_one(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(repository, "--target", "recall@10>=0.9", "--families", "exact", "ivf_flat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny@1, 120 queries"
    rows = [line.split() for line in lines[2:-1]]
    assert [row[0] for row in rows].count(">") == 1
    assert lines[-1].startswith("published tiny@2 with ")
    assert Repository(repository).versions("tiny") == [1, 2]


def test_a_dry_run_says_what_would_be_published_and_publishes_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(repository, "--target", "p50<=10s", "--families", "exact", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "would publish tiny with exact"
    assert Repository(repository).versions("tiny") == [1]


def test_json_is_one_document_also_where_no_setting_will_do(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ("--target", "recall@10>=1", "--target", "memory<=1kB")
    assert tune(repository, *targets, "--families", "exact", "--json") == 3
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["chosen"], document["version"]) == (None, None)
    assert document["best"] == document["settings"][0]
    assert document["best"]["recall@10"] == 1
    assert err.splitlines()[-1].startswith(
        "motherlode: no index setting meets recall@10>=1 and memory<=1kB; exact comes nearest"
    )


@pytest.mark.parametrize(
    ("model", "arguments", "status", "message"),
    [
        ("tiny", ["--target", "speed<=1ms"], 2, "target: expected one such as recall@10>=0.99"),
        ("tiny", ["--target", "recall@99>=0.9"], 2, "k: expected 1 to 60, the labels"),
        ("tiny", ["--target", "memory<=1Mb"], 2, "target memory: expected a unit of B, kB, MB"),
        ("tiny", ["--target", "p99<=1s", "--target", "p99<=2s"], 2, "target: expected p99 once"),
        ("tiny", ["--target", "p99<=1ms", "--families", "tree"], 2, "families: expected of exact"),
        ("tiny", ["--target", "p99<=1ms", "--threads", "0"], 2, "--threads"),
        ("tiny", [], 2, "--target"),
        ("bare", ["--target", "p99<=1ms"], 2, "queries: expected a file of at least 100 queries"),
        ("tiny@9", ["--target", "p99<=1ms"], 1, "no version 'tiny@9'; there is 1"),
        ("none", ["--target", "p99<=1ms"], 1, "no model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    assert tune(repository, *arguments, model=model) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[0]
    assert Repository(repository).versions("tiny") == [1]
