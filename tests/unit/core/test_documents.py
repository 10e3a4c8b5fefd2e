from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.core import documents
from motherlode.core.documents import read_json


def test_a_document_is_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Expecting property name"),
        (b"\xff\xfe\xff", "codec can't decode"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_document_is_a_value_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_a_file_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1000)
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        read_json(Path("/dev/zero"))
