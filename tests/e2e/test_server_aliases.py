"""Aliases in the repository that decide which version serves."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from motherlode.core.repository import Repository
from tests.support.bundles import publish_tiny
from tests.support.servers import RunningServer, running_server

pytestmark = pytest.mark.asyncio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


async def scan(server: RunningServer) -> None:
    await server.server.watcher.scan()


async def test_a_serving_alias_decides_which_version_serves(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    Repository(repository).set_alias("tiny", "stable", 1)
    async with running_server(repository, serve_alias="stable") as server:
        before = await server.ask("topic7")
        Repository(repository).set_alias("tiny", "stable", 2)
        await scan(server)
        after = await server.ask("topic7")
        Repository(repository).set_alias("tiny", "stable", 1)
        await scan(server)
        back = await server.ask("topic7")
    assert [one.version for one in (before, after, back)] == [1, 2, 1]


async def test_without_its_alias_a_model_serves_its_newest_version(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    async with running_server(repository, serve_alias="stable") as server:
        assert (await server.ask("topic7")).version == 2


async def test_broken_aliases_change_nothing_and_are_told(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    async with running_server(repository, serve_alias="stable") as server:
        publish_tiny(repository, seed=1)
        (repository / "tiny" / "aliases.json").write_text("{", encoding="utf-8")
        await scan(server)
        assert (await server.ask("topic7")).version == 1
        assert "aliases.json" in (await server.info()).models[0].load_error


async def test_nothing_is_loaded_that_unreadable_aliases_may_have_rolled_back(
    repository: Path,
) -> None:
    publish_tiny(repository, seed=1)
    aliases = repository / "tiny" / "aliases.json"
    aliases.write_text("{", encoding="utf-8")
    async with running_server(repository, serve_alias="stable") as server:
        assert "aliases.json" in (await server.info()).models[0].load_error
        with pytest.raises(grpc.aio.AioRpcError, match="no version of model tiny is loaded"):
            await server.ask("topic7")
        aliases.write_text('{"stable": 1}', encoding="utf-8")
        await scan(server)
        assert (await server.ask("topic7")).version == 1
