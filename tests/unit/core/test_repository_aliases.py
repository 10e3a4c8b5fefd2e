"""Aliases that outlive what they mean, and aliases that are put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from motherlode.core.errors import NotFoundError
from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for seed in (0, 1):
        publish_tiny(tmp_path, seed=seed)
    return Repository(tmp_path)


def test_an_alias_whose_version_is_gone_can_be_removed(repository: Repository) -> None:
    repository.set_alias("tiny", "stable", 1)
    shutil.rmtree(repository.path_of("tiny", 1))
    with pytest.raises(NotFoundError, match="tiny@1, which the alias stable names"):
        repository.resolve("tiny", "stable")
    repository.remove_alias("tiny", "stable")
    assert repository.aliases("tiny") == {}


def test_aliases_are_restored_but_for_what_somebody_else_moved(repository: Repository) -> None:
    before = {"stable": 7, "moved": 3, "gone": 2}
    written = {"stable": 1, "canary": 2, "moved": 1, "gone": 1}
    for alias, version in {"stable": 1, "canary": 2, "moved": 2, "other": 1}.items():
        repository.set_alias("tiny", alias, version)
    restored = {"stable": 7, "moved": 2, "other": 1}
    assert repository.restore_aliases("tiny", before, written) == restored
    assert repository.aliases("tiny") == restored
