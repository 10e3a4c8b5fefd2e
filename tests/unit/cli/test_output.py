from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from motherlode.cli.output import print_json, print_line, print_note, print_table


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@dataclass
class Point:
    x: int
    name: str


def test_lines_go_to_standard_output_and_notes_to_standard_error(capsys):
    print_line("answer")
    print_note("remark")
    assert capsys.readouterr() == ("answer\n", "remark\n")


def test_json_is_one_document_with_text_as_it_is(capsys):
    document = {
        "name": "Москва 東京",
        "scores": np.array([1.5, 2.0], np.float32),
        "count": np.int64(3),
        "path": Path("a") / "b",
        "point": Point(1, "p"),
    }
    print_json(document)
    out = capsys.readouterr().out
    assert "Москва 東京" in out
    assert json.loads(out) == {
        "name": "Москва 東京",
        "scores": [1.5, 2.0],
        "count": 3,
        "path": "a/b",
        "point": {"x": 1, "name": "p"},
    }


def test_a_number_that_json_cannot_say_is_refused(capsys):
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": float("nan")})
    assert capsys.readouterr().out == ""


def test_a_value_without_json_form_is_refused():
    with pytest.raises(TypeError, match="object has no JSON form"):
        print_json({"a": object()})


def test_a_table_off_a_terminal_is_aligned_text_with_numbers_to_the_right(capsys):
    print_table(["rank", "label", "score"], [(1, "Lisbon", 12.5), (10, None, -0.25)], title="Top")
    assert capsys.readouterr().out == (
        "Top\n"
        "rank  label     score\n"
        "   1  Lisbon  12.5000\n"
        "  10          -0.2500\n"
    )  # fmt: skip


def test_wide_and_combining_characters_keep_the_columns_aligned(capsys):
    print_table(["name", "next"], [("東京", "x"), ("e\u0301te\u0301", "x"), ("abc", "x")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["東京  x", "e\u0301te\u0301   x", "abc   x"]


def test_a_cell_cannot_break_its_row_or_steer_the_terminal(capsys):
    print_table(["a"], [("x\ny\x1b[31mz\u2028",)])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out


def test_a_table_without_rows_is_its_heading(capsys):
    print_table(["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells in a row, got 1"):
        print_table(["a", "b"], [(1,)])


def test_a_table_on_a_terminal_is_ruled_and_takes_no_markup_from_cells(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "dumb")
    print_table(["label"], [("[red]not markup[/red]",)], title="[b]title")
    text = terminal.getvalue()
    assert "[red]not markup[/red]" in text
    assert "[b]title" in text
    assert "─" in text
