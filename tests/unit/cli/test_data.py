from __future__ import annotations

import json

import pytest

from motherlode.cli import data
from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.trainer.data import GeonamesSummary


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch):
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    made = []

    def make(size, folder):
        made.append((size, folder))
        return GeonamesSummary(num_train=1234, num_test=56, num_labels=7)

    monkeypatch.setattr(data, "make_geonames", make)
    return made


def test_geonames_makes_the_data_set_and_says_what_is_in_it(tmp_path, calls, capsys):
    assert main(["data", "geonames", "--out", str(tmp_path), "--size", "cities500"]) == 0
    assert calls == [("cities500", tmp_path)]
    out = capsys.readouterr().out
    assert out == f"{tmp_path}: 1,234 training and 56 test queries, 7 labels\n"


def test_geonames_prints_one_json_document(tmp_path, calls, capsys):
    assert main(["data", "geonames", "--out", str(tmp_path), "--json"]) == 0
    assert calls == [("cities15000", tmp_path)]
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path),
        "size": "cities15000",
        "num_train": 1234,
        "num_test": 56,
        "num_labels": 7,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x", "--size", "cities1"], "cities1"),
        ([], "--out"),
        (["--out", "x", "--no-json"], "--no-json"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_made(calls, capsys, arguments, message):
    assert main(["data", "geonames", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert calls == []


def test_a_file_in_place_of_the_folder_is_one_line_of_error(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["data", "geonames", "--out", str(tmp_path / "file")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "not a folder" in captured.err
