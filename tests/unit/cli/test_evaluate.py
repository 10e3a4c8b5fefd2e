from __future__ import annotations

import json
from pathlib import Path

import pytest

from motherlode.cli.evaluate import evaluate
from motherlode.core.errors import DataError
from tests.support.bundles import publish_tiny


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    publish_tiny(path)
    return path


def write(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf8")
    return path


def test_texts_and_sparse_features_can_be_evaluated_with_a_text_model(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = write(tmp_path / "q.jsonl", {"text": "topic7", "labels": ["label7"]})
    evaluate(repository=repository, model="tiny", input=texts, json=True)
    by_text = capsys.readouterr()
    assert json.loads(by_text.out)["P@1"] == 100.0
    assert by_text.err == ""
    sparse = {"indices": [1, 3], "values": [0.5, 1.0], "labels": ["label7"]}
    evaluate(
        repository=repository, model="tiny", input=write(tmp_path / "s.jsonl", sparse), json=True
    )
    assert "P@1" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"features": [1.0, 2.0]}, r"q\.jsonl:1: queries: expected one of text, sparse, got feat"),
        ({"indices": [53], "values": [1.0]}, r"q\.jsonl:1: indices\[0\]: expected a feature id"),
    ],
)
def test_what_the_model_does_not_take_is_named_by_file_and_line(
    repository: Path, tmp_path: Path, record: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "q.jsonl", record | {"labels": ["label7"]})
    with pytest.raises(DataError, match=message):
        evaluate(repository=repository, model="tiny", input=path)


def test_queries_without_a_label_that_the_model_knows_are_noted(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels: list[list[str]] = [["label7"], ["nobody"], []]
    path = write(tmp_path / "q.jsonl", *({"text": "topic7", "labels": keys} for keys in labels))
    evaluate(repository=repository, model="tiny", input=path, json=True)
    out, err = capsys.readouterr()
    assert err == "Note: 2 of 3 queries have no label that the model knows.\n"
    assert json.loads(out)["P@1"] == pytest.approx(100 / 3)
