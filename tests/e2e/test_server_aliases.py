"""Aliases in the repository that decide which version serves."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from motherlode.clients import AdminClient, UnsupportedError
from motherlode.core.repository import Repository
from tests.support.admin import operate
from tests.support.bundles import publish_tiny
from tests.support.servers import RunningServer, running_server

pytestmark = pytest.mark.asyncio

_DETAILS = "grpc-status-details-bin"


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


async def test_nothing_serves_in_the_place_of_a_version_that_its_alias_names_and_nobody_has(
    repository: Path, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    publish_tiny(repository, seed=1)
    Repository(repository).set_alias("tiny", "stable", 1)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "000001"
    Repository(repository).path_of("tiny", 1).rename(elsewhere)
    why = "the alias stable names tiny@1, which is not there; the repository has 2"
    async with running_server(repository) as server:
        await scan(server)
        with pytest.raises(grpc.aio.AioRpcError, match=why) as refused:
            await server.ask("topic7")
        assert b"google.rpc.RetryInfo" in dict(refused.value.trailing_metadata())[_DETAILS]
        assert (await server.info()).models[0].load_error == why
        assert server.metric("models", state="failing") == 1
        health = health_pb2_grpc.HealthStub(server.channel)
        for name in ("model:tiny", "motherlode.v1.RetrievalService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [why]
        elsewhere.rename(Repository(repository).path_of("tiny", 1))
        await scan(server)
        assert (await server.ask("topic7")).version == 1
        assert (await server.info()).models[0].load_error == ""


async def test_a_server_keeps_what_it_serves_where_its_alias_names_a_version_that_nobody_has(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        (repository / "tiny" / "aliases.json").write_text('{"stable": 9}', encoding="utf-8")
        await scan(server)
        assert (await server.ask("topic7")).version == 1
        load_error = (await server.info()).models[0].load_error
        assert load_error.startswith("the alias stable names tiny@9, which is not there")
        with pytest.raises(UnsupportedError, match="the alias stable names tiny@9"):
            await operate(server, AdminClient.load_model)
        model = await operate(server, lambda admin: admin.remove_alias("stable"))
        assert (model.serving_version, model.load_error) == (1, "")


async def test_failures_of_versions_that_are_gone_are_forgotten(repository: Path) -> None:
    async with running_server(repository) as server:
        for seed in (1, 2):
            folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=seed))
            (folder / "labels.arrow").write_bytes(b"")
        await scan(server)
        failures = server.server.watcher.intake.failures
        assert sorted(failures) == [("tiny", 2), ("tiny", 3)]
        shutil.rmtree(folder)
        await scan(server)
        assert list(server.server.watcher.intake.failures) == [("tiny", 2)]
