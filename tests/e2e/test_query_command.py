"""`motherlode query` against a server with planted answers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from motherlode.cli.main import main
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.fake_server import fake_server
from tests.support.retrieval import FakeRetrieval


@pytest.fixture
def fake() -> FakeRetrieval:
    return FakeRetrieval(limits=pb.Limits(max_queries_per_call=100))


@pytest.fixture
def target(fake) -> Iterator[str]:
    with fake_server(fake) as (address, _):
        yield address


def test_each_text_has_a_table_and_the_version_is_told_aside(target, capsys):
    assert main(["query", "--target", target, "--text", "q7", "--text", "q20", "-k", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "q7\n"
        "rank  label   key      score\n"
        "   1  topic7  label7  1.0000\n"
        "   2  topic8  label8  0.9900\n"
        "\n"
        "q20\n"
        "rank  label    key       score\n"
        "   1  topic20  label20  1.0000\n"
        "   2  topic21  label21  0.9900\n"
    )
    assert err.startswith("tiny version 3: 2 queries in ")


@pytest.mark.parametrize(
    ("arguments", "told", "status"),
    [
        ([], "serving", 0),
        (["--model", "broken"], "not_serving", 1),
        (["--model", "x"], "unknown", 1),
    ],
)
def test_health_is_told_in_a_word_and_by_the_exit_status(target, capsys, arguments, told, status):
    assert main(["health", "--target", target, *arguments]) == status
    assert capsys.readouterr().out == f"{told}\n"


def test_json_is_one_document_on_standard_output(target, capsys):
    assert main(["query", "--target", target, "--text", "q7", "-k", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["version"] == 3
    assert document["bundle_digest"] == "digest3"
    assert document["results"] == [
        {
            "query": "q7",
            "hits": [{"label": 7, "key": "label7", "text": "topic7", "score": 1.0}],
        }
    ]


def test_texts_come_from_a_file_after_those_of_the_flags(target, tmp_path, capsys):
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffq1\n\n  q2  \r\nq3".encode())
    arguments = ["--text", "q9", "--file", str(file), "-k", "1", "--json"]
    assert main(["query", "--target", target, *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["query"] for result in document["results"]] == ["q9", "q1", "q2", "q3"]


def test_texts_come_from_standard_input(target, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"q4\nq5\n")))
    assert main(["query", "--target", target, "--file", "-", "-k", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["query"] for result in document["results"]] == ["q4", "q5"]


def test_a_text_may_begin_with_a_hyphen(target, capsys):
    assert main(["query", "--target", target, "--text=-7", "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["query"] == "-7"


@pytest.mark.parametrize(
    ("reference", "name", "version", "alias"),
    [("tiny", "tiny", 0, ""), ("tiny@7", "tiny", 7, ""), ("tiny@stable", "tiny", 0, "stable")],
)
def test_a_model_is_named_with_version_or_alias(target, fake, reference, name, version, alias):
    assert main(["query", "--target", target, "--text", "q1", "--model", reference]) == 0
    model = fake.requests[0].model
    assert (model.name, model.version, model.alias) == (name, version, alias)


@pytest.mark.parametrize("reference", ["tiny@", "@7"])
def test_half_a_model_reference_is_wrong_usage(target, capsys, reference):
    assert main(["query", "--target", target, "--text", "q1", "--model", reference]) == 2
    assert "MODEL@VERSION" in capsys.readouterr().err


def test_a_query_that_the_model_knows_nothing_of_is_pointed_out(target, capsys):
    assert main(["query", "--target", target, "--text", "q0"]) == 0
    assert "The model knows no feature of this query." in capsys.readouterr().err


def test_no_query_at_all_is_wrong_usage(target, tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    assert main(["query", "--target", target]) == 2
    assert main(["query", "--target", target, "--file", str(empty)]) == 2
    assert "at least one query" in capsys.readouterr().err


def test_a_line_that_is_no_utf8_is_named(target, tmp_path, capsys):
    file = tmp_path / "latin.txt"
    file.write_bytes(b"q1\nM\xfcnchen\n")
    assert main(["query", "--target", target, "--file", str(file)]) == 1
    assert f"{file}:2: query: expected UTF-8" in capsys.readouterr().err


def test_an_address_where_nothing_listens_is_one_line(capsys):
    assert main(["query", "--target", "127.0.0.1:1", "--text", "q1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("motherlode: no server answers at 127.0.0.1:1 (")
    assert len(err.splitlines()) == 1
