"""`deploy/audit.py`, with a tool in the place of pip-audit."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import ROOT

SCRIPT = ROOT / "deploy" / "audit.py"
KNOWN = {"id": "PYSEC-1", "fix_versions": ["5.4"]}

TOOL = """
import json, pathlib, sys
answer = json.loads({answer!r})
pins = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().split()
print(json.dumps({{"dependencies": answer["canary" if len(pins) == 1 else "all"]}}))
"""


def audit(folder: Path, answer: dict[str, Any] | None) -> int:
    tool = folder / "pip_audit"
    tool.mkdir()
    code = "import sys; sys.exit('no such host')"
    if answer is not None:
        code = TOOL.format(answer=json.dumps(answer))
    (tool / "__main__.py").write_text(code, encoding="utf-8")
    status: int = runpy.run_path(str(SCRIPT))["_ask_for_advisories"]()
    return status


def dependency(name: str, *holes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "5.1", "vulns": list(holes)}


CANARY = [dependency("pyyaml", KNOWN)]


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        ({"canary": CANARY, "all": [dependency("a")]}, 0, ""),
        ({"canary": CANARY, "all": [dependency("a", KNOWN)]}, 1, "a 5.1: PYSEC-1, mended in"),
        ({"canary": CANARY, "all": [{"name": "a", "skip_reason": "lost"}]}, 4, "a: lost"),
        ({"canary": [dependency("pyyaml")], "all": []}, 4, "and none was named"),
        ({"canary": [{"name": "pyyaml", "skip_reason": "lost"}], "all": []}, 4, "cannot be had"),
        (None, 4, "the advisories cannot be had: no such host"),
    ],
)
def test_silence_is_never_taken_for_health(
    tmp_path: Path,
    answer: dict[str, Any] | None,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert audit(tmp_path, answer) == status
    assert told in capsys.readouterr().err


def test_a_range_that_reaches_below_a_sound_version_is_found() -> None:
    names = runpy.run_path(str(SCRIPT))
    assert names["_too_wide_ranges"]() == []
    names["FIRST_SOUND"]["torch"] = ("99", "CVE-1")
    [found] = names["_too_wide_ranges"]()
    assert "torch<2.14,>=2.13 allows versions before 99, which mended CVE-1" in found
