from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import publish_tiny
from tests.support.scoring import texts, write_jsonl


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    publish_tiny(path)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one test, which may publish to it."""
    publish_tiny(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input of 50 rows: three parts."""
    return write_jsonl(tmp_path / "queries.jsonl", texts(50))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"
