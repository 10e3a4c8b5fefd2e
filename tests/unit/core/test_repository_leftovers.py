"""What processes that died have left in a repository, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from motherlode.core import repository as repository_module
from motherlode.core.repository import Repository
from motherlode.core.staging import staging_folder
from tests.support.bundles import publish_tiny
from tests.support.waiting import TIMEOUT_S


@pytest.fixture
def filled(tmp_path: Path) -> Repository:
    """Versions 1 to 3 of `tiny`, of which 2 is `stable`."""
    for seed in range(3):
        publish_tiny(tmp_path, seed=seed, num_labels=5)
    Repository(tmp_path).set_alias("tiny", "stable", 2)
    return Repository(tmp_path)


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


DIE_WHILE_STAGING = """
import os, signal, sys
from pathlib import Path
from motherlode.core.staging import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "encoder.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_publisher_left_is_hidden_and_goes_with_the_next_publish(
    filled: Repository,
) -> None:
    model = filled.path / "tiny"
    killed = subprocess.run([sys.executable, "-c", DIE_WHILE_STAGING, str(model)], check=False)
    assert killed.returncode == -signal.SIGKILL
    leftovers = [name for name in entries(model) if name.startswith(".staging-")]
    assert len(leftovers) == 2
    assert filled.versions("tiny") == [1, 2, 3]
    assert publish_tiny(filled.path, num_labels=5) == 4
    assert not [name for name in entries(model) if name.startswith(".")]


DIE_BEFORE_THE_LAST_RENAME = """
import os, signal, sys
from pathlib import Path
from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "publish":
    Path.rename = die
    publish_tiny(Path(sys.argv[1]), num_labels=5)
else:
    Path.replace = die
    Repository(Path(sys.argv[1])).set_alias("tiny", "stable", 1)
"""


def die_before_the_last_rename(repository: Repository, what: str) -> None:
    command = [sys.executable, "-c", DIE_BEFORE_THE_LAST_RENAME, str(repository.path), what]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL


def test_what_was_killed_before_its_last_rename_goes_with_the_next_publish(
    filled: Repository,
) -> None:
    model = filled.path / "tiny"
    die_before_the_last_rename(filled, "publish")
    assert list(filled.path_of("tiny", 4).iterdir()) == []
    die_before_the_last_rename(filled, "alias")
    assert [name for name in entries(model) if name.startswith(".aliases.json-")]
    assert (filled.versions("tiny"), filled.aliases("tiny")) == ([1, 2, 3], {"stable": 2})
    filled.path_of("tiny", 7).mkdir()
    (filled.path_of("tiny", 7) / "labels.arrow").touch()
    assert publish_tiny(filled.path, num_labels=5) == 8
    assert entries(model) == ["000001", "000002", "000003", "000007", "000008", "aliases.json"]


def test_nobody_takes_a_claimed_number_for_a_leftover(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, second_waits = Event(), Event()
    rename, lock = Path.rename, repository_module.locked

    def renamed(folder: Path, target: Path) -> Path:
        if not claimed.is_set():
            claimed.set()
            assert second_waits.wait(TIMEOUT_S)
            assert list(target.iterdir()) == []
        return rename(folder, target)

    @contextmanager
    def noted(path: Path) -> Iterator[None]:
        if claimed.is_set():
            second_waits.set()
        with lock(path):
            yield

    def publish_second() -> int:
        assert claimed.wait(TIMEOUT_S)
        return publish_tiny(filled.path, num_labels=5)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(repository_module, "locked", noted)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(publish_second)
        first = pool.submit(publish_tiny, filled.path, num_labels=5)
        assert (first.result(), second.result()) == (4, 5)


def test_a_publisher_leaves_the_work_of_a_living_one_alone(filled: Repository) -> None:
    with staging_folder(filled.path / "tiny") as other:
        (other / "encoder.safetensors").write_bytes(b"half")
        publish_tiny(filled.path, num_labels=5)
        assert (other / "encoder.safetensors").read_bytes() == b"half"


def test_an_interrupted_removal_is_completed_by_the_next_publish(filled: Repository) -> None:
    (filled.path / "tiny" / ".removed-0123").mkdir()
    (filled.path / "tiny" / ".removed-0123" / "labels.arrow").touch()
    publish_tiny(filled.path, num_labels=5)
    assert ".removed-0123" not in entries(filled.path / "tiny")
