from __future__ import annotations

import re

import pytest

from tests.support.fake_server import fake_server
from tests.support.retrieval import FakeRetrieval
from tests.support.source import ROOT

README_ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):8001\b")
BLOCKS = re.findall(
    r"^```python\n(.*?)^```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.skipif(not BLOCKS, reason="the README has no Python block")
def test_the_python_blocks_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch):
    # Where a reader would have a server of his own at the default address, a planted one answers.
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    with fake_server(FakeRetrieval()) as (address, _):
        for number, block in enumerate(BLOCKS, start=1):
            code = README_ADDRESS.sub(address, block)
            exec(compile(code, f"README.md, block {number}", "exec"), namespace)
