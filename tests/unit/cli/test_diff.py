"""`motherlode diff` in this process: what it prints, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from tests.support.bundles import publish_tiny


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`tiny` with 20 labels, then 30 others, 20 with the same keys, then the first again."""
    for seed, num_labels in ((0, 20), (1, 30), (0, 20)):
        publish_tiny(tmp_path, seed=seed, num_labels=num_labels)
    Repository(tmp_path).set_alias("tiny", "stable", 1)
    return tmp_path


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.jsonl"
    lines = [json.dumps({"id": f"q{i}", "text": f"topic{i} filler"}) for i in range(12)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def diff(repository: Path, queries: Path, a: str, b: str, *arguments: str) -> int:
    where = ["--repository", str(repository), "--queries", str(queries)]
    return main(["diff", a, b, *where, *arguments])


def document(capsys: pytest.CaptureFixture[str]) -> dict:
    read: dict = json.loads(capsys.readouterr().out)
    return read


def test_a_version_does_not_differ_from_itself(repository, queries, capsys):
    assert diff(repository, queries, "tiny@stable", "tiny@3", "--json") == 0
    found = document(capsys)
    assert (found["overlap@10"], found["same_first"], found["same_answer"]) == (1, 1, 1)
    assert found["score_shift"]["largest"] == 0
    assert found["movers"] == found["added"] == found["removed"] == []
    assert (found["a"]["model"], found["b"]["model"]) == ("tiny@1", "tiny@3")
    assert found["a"]["bundle_digest"] == found["b"]["bundle_digest"]


def test_movers_hold_the_answers_of_both_retrievers(repository, queries, capsys):
    assert diff(repository, queries, "tiny@1", "tiny@2", "-k", "5", "--json", "--movers", "3") == 0
    found = document(capsys)
    assert 0 < found["overlap@5"] < 1
    assert [mover["overlap"] for mover in found["movers"]] == sorted(
        mover["overlap"] for mover in found["movers"]
    )
    for side, version in (("a", 1), ("b", 2)):
        retriever = Retriever.load(Repository(repository), "tiny", version)
        for mover in found["movers"]:
            number = int(mover["id"].removeprefix("q"))
            assert mover["text"] == f"topic{number} filler"
            top = retriever.top_k(TextQueries([mover["text"]]), 5)
            assert [hit["key"] for hit in mover[side]] == retriever.labels.keys_of(top.labels)
            assert [hit["score"] for hit in mover[side]] == top.scores.tolist()


def test_labels_added_and_removed_are_named(repository, queries, capsys):
    assert diff(repository, queries, "tiny@1", "tiny@2", "--json") == 0
    forwards = document(capsys)
    assert diff(repository, queries, "tiny@2", "tiny@1", "--json") == 0
    backwards = document(capsys)
    assert forwards["num_added"] == backwards["num_removed"] == 10
    assert forwards["added"] == backwards["removed"] == [f"label{i}" for i in range(20, 30)]
    assert forwards["overlap@10"] == backwards["overlap@10"]
    assert forwards["score_shift"]["mean"] == pytest.approx(-backwards["score_shift"]["mean"])


def test_the_tables_name_both_versions_and_mark_what_only_one_found(repository, queries, capsys):
    assert diff(repository, queries, "tiny@1", "tiny", "--movers", "1") == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny@1 (A) and tiny@3 (B), 12 queries\n")
    assert "overlap@10   100.00%" in out
    assert diff(repository, queries, "tiny@1", "tiny@2", "--movers", "1") == 0
    out = capsys.readouterr().out
    assert (
        "labels added: 10 (label20, label21, label22, label23, label24, ...); removed: none" in out
    )
    assert "filler: overlap 0." in out
    assert "  *  topic" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["tiny@1", "tiny@9"], 1, "no version"),
        (["tiny@1", "other"], 1, "no model"),
        (["tiny@1", "tiny@2", "-k", "21"], 2, "k: expected 1 to 20, the labels of both, got 21"),
        (["tiny@1", "tiny@2", "-k", "0"], 2, "-k"),
        (["tiny@1"], 2, "requires"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    repository, queries, capsys, arguments, status, message
):
    where = ["--repository", str(repository), "--queries", str(queries)]
    assert main(["diff", *arguments, *where]) == status
    assert message in capsys.readouterr().err


def test_a_file_without_queries_is_wrong(repository, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert diff(repository, empty, "tiny@1", "tiny@2") == 1
    assert "empty.jsonl: records: expected at least one" in capsys.readouterr().err


def test_a_broken_record_is_named(repository, tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"txt": "b"}\n', encoding="utf-8")
    assert diff(repository, broken, "tiny@1", "tiny@2") == 1
    assert "broken.jsonl:2" in capsys.readouterr().err
