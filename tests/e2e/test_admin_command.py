"""`motherlode admin` against a server in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from motherlode.core.repository import Repository
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import TIMEOUT_S, ServerProcess, server_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves version 2 of 3; the third does not give its golden answers."""
    repository = tmp_path_factory.mktemp("repository")
    for seed in (0, 1, 2):
        publish_tiny(repository, seed=seed)
    folder = Repository(repository).path_of("tiny", 3)
    shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
    forge_manifest(folder)
    ready = tmp_path_factory.mktemp("ready") / "ready.json"
    with server_process(repository, ready) as process:
        yield process


def admin(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "motherlode.cli.main", "admin", *arguments]
    command += ["--target", server.admin]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_an_operator_lists_tries_and_moves_versions(server: ServerProcess) -> None:
    listed = json.loads(admin(server, "list", "--json").stdout)
    [model] = listed["models"]
    assert (model["name"], model["serving_version"]) == ("tiny", 2)
    assert [one["state"] for one in model["versions"]] == ["failed", "available", "start"]

    figures = json.loads(admin(server, "validate", "tiny@1", "--json").stdout)["figures"]
    assert figures[0] == {"name": "golden queries", "value": 8, "bound": 8, "is_least": True}

    assert "available" in admin(server, "load", "tiny@1").stdout
    trial = admin(server, "canary", "tiny@1", "--percent", "10")
    assert "canary: tiny@1 with 10 %" in trial.stdout
    assert admin(server, "canary", "tiny", "--end").returncode == 0

    moved = json.loads(admin(server, "rollback", "tiny", "--json").stdout)
    assert (moved["serving_version"], moved["aliases"]) == (1, {"stable": 1})
    moved = json.loads(admin(server, "alias", "tiny@2", "stable", "--json").stdout)
    assert moved["serving_version"] == 2
    assert admin(server, "unload", "tiny@1").returncode == 0
    moved = json.loads(admin(server, "alias", "tiny", "stable", "--remove", "--json").stdout)
    assert moved["aliases"] == {}


def test_an_operator_lets_a_model_go_and_loads_it_again(server: ServerProcess) -> None:
    gone = json.loads(admin(server, "unload", "tiny", "--json").stdout)
    assert (gone["serving_version"], gone["is_unloaded"]) == (0, True)
    assert "trouble: unloaded" in admin(server, "list").stderr
    refused = admin(server, "load", "tiny")
    assert (refused.returncode, "tiny@3: gate: " in refused.stderr) == (3, True)
    [model] = json.loads(admin(server, "list", "--json").stdout)["models"]
    assert (model["serving_version"], model["is_unloaded"]) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["validate", "tiny@3"], 3, "tiny@3: gate: "),
        (["alias", "tiny@3", "stable"], 3, "tiny@3: gate: "),
        (["load", "tiny@9"], 1, "no version 'tiny@9'; there is 1, 2, 3"),
        (["load", "@1"], 2, "model: expected MODEL@VERSION, got '@1'"),
        (["load", "other"], 1, "no model 'other'; there is tiny"),
        (["unload", "other"], 1, "no model 'other'; there is tiny"),
        (["load", f"tiny@{'9' * 5000}"], 2, "model: expected MODEL@VERSION, got "),
        (["load", "tiny@one"], 2, "model: expected MODEL@VERSION, got tiny@one"),
        (["canary", "tiny@1"], 2, "--percent: expected a share, or --end"),
        (["canary", "tiny@1", "--percent", "0"], 2, "Must be > 0"),
    ],
)
def test_what_cannot_be_done_has_its_status(
    server: ServerProcess, arguments: list[str], status: int, message: str
) -> None:
    ended = admin(server, *arguments)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert message in ended.stderr.replace("'tiny'", "tiny").replace("'tiny@one'", "tiny@one")


def test_a_port_that_is_no_admin_port_is_told(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "motherlode.cli.main", "admin", "list"]
    command += ["--target", server.address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    assert "--target: expected an admin port" in ended.stderr


def test_where_no_server_answers_one_line_says_so() -> None:
    command = [sys.executable, "-m", "motherlode.cli.main", "admin", "list"]
    command += ["--target", "127.0.0.1:1", "--timeout-s", "5"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 1
    assert "no server answers at 127.0.0.1:1" in ended.stderr
