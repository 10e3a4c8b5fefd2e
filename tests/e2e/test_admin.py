"""What operators do over the admin port of a running server."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Self

import grpc
import pytest

from motherlode.clients import (
    AdminClient,
    InvalidArgumentError,
    NotFoundError,
    RefusedError,
    UnsupportedError,
)
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.gate import warm_up
from motherlode.v1 import model_admin_pb2 as admin_pb
from motherlode.v1 import model_admin_pb2_grpc
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.admin import operate, version_of
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import TIMEOUT_S, Barrier, RunningServer, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for seed in (0, 1):
        publish_tiny(tmp_path, seed=seed)
    return tmp_path


def give_other_answers(repository: Path, version: int) -> None:
    """Makes a version whose golden answers are another one's."""
    folder = Repository(repository).path_of("tiny", version)
    shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
    forge_manifest(folder)


class Held:
    """Stops each load before its warm-up, until it is released."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        self._patch = patch

    def __enter__(self) -> Self:
        self._patch.setattr("motherlode.server.intake.warm_up", self._warm_up)
        return self

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self._patch.setattr("motherlode.server.intake.warm_up", warm_up)

    def _warm_up(self, retriever: Retriever, max_batch: int) -> float:
        self.entered.set()
        assert self.released.wait(TIMEOUT_S)
        return warm_up(retriever, max_batch)


async def scan(server: RunningServer) -> None:
    await server.server.watcher.scan()


def loads(server: RunningServer) -> float | None:
    return server.metric("model_loads_total", model="tiny", result="ok", reason="")


async def test_a_list_says_what_has_become_of_each_version(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "old", 1)
    async with running_server(repository, kept_versions=0) as server:
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=2)
            await scan(server)
            give_other_answers(repository, publish_tiny(repository, seed=3))
            await scan(server)
            [model] = await operate(server, AdminClient.list_models)
            barrier.release()
            await early
        digest = server.current().digest
    assert (model.name, model.serving_version, model.aliases) == ("tiny", 3, {"old": 1})
    assert [one.state for one in model.versions] == ["failed", "available", "retiring", "start"]
    assert model.versions[0].detail.startswith("gate: ")
    assert model.load_error.startswith("tiny@4: gate: ")
    assert (model.versions[1].is_serving, model.versions[1].bundle_digest) == (True, digest)
    assert model.versions[1].ram_bytes > 0
    assert model.versions[2].current_calls == 1
    assert model.versions[3].aliases == ("old",)


async def test_calls_are_counted_by_version(repository: Path) -> None:
    async with running_server(repository) as server:
        await server.ask("topic7")
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7", k=0)
        [model] = await operate(server, AdminClient.list_models)
    version = version_of(model, 2)
    assert (version.answered_calls, version.failed_calls, version.current_calls) == (1, 1, 0)


async def test_a_version_is_loaded_beside_the_serving_one_and_let_go(repository: Path) -> None:
    async with running_server(repository) as server:
        model = await operate(server, lambda admin: admin.load_version(1))
        assert (model.serving_version, version_of(model, 1).state) == (2, "available")
        named = await server.ask("topic7", model=pb.ModelRef(version=1))
        assert (named.version, (await server.ask("topic7")).version) == (1, 2)
        await scan(server)
        assert [one.version for one in server.server.catalog.find("tiny").loaded] == [2, 1]
        await operate(server, lambda admin: admin.unload_version(1))
        await server.server.watcher.wait_retired()
        with pytest.raises(grpc.aio.AioRpcError, match="no version 'tiny@1'"):
            await server.ask("topic7", model=pb.ModelRef(version=1))


async def test_what_serves_is_not_let_go(repository: Path) -> None:
    async with running_server(repository) as server:
        with pytest.raises(UnsupportedError, match="tiny@2 serves"):
            await operate(server, lambda admin: admin.unload_version(2))
        with pytest.raises(NotFoundError, match="tiny@1"):
            await operate(server, lambda admin: admin.unload_version(1))


@pytest.mark.parametrize("version", [-1, 0, 9])
async def test_a_version_that_is_not_there_is_not_found(repository: Path, version: int) -> None:
    async with running_server(repository) as server:
        for ask in (AdminClient.load_version, AdminClient.validate_version):
            with pytest.raises(NotFoundError, match="there is 1, 2"):
                await operate(server, lambda admin, ask=ask: ask(admin, version))
        with pytest.raises(NotFoundError, match="no model 'other'; there is tiny"):
            await operate(server, lambda admin: admin.load_version(1, "other"))


async def test_a_validation_gives_the_figures_and_changes_nothing(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    publish_tiny(tmp_path, seed=1, index_kind="hnsw")
    Repository(tmp_path).set_alias("tiny", "stable", 1)
    async with running_server(tmp_path) as server:
        figures = await operate(server, lambda admin: admin.validate_version(2))
        [model] = await operate(server, AdminClient.list_models)
    measured = {figure.name: figure for figure in figures}
    assert measured["golden queries"].value == 8
    assert measured["recall@10"].bound == pytest.approx(0.98)
    assert measured["p50_s of 64 queries"].value > 0
    assert [one.state for one in model.versions] == ["start", "available"]


async def test_a_validation_refuses_what_a_reload_would_refuse(repository: Path) -> None:
    give_other_answers(repository, publish_tiny(repository, seed=2))
    Repository(repository).set_alias("tiny", "stable", 2)
    async with running_server(repository) as server:
        with pytest.raises(RefusedError, match=r"tiny@3: gate: .*golden\.arrow") as error:
            await operate(server, lambda admin: admin.validate_version(3))
        assert error.value.reason == "GATE_REFUSED"
        (Repository(repository).path_of("tiny", 1) / "labels.arrow").write_bytes(b"")
        with pytest.raises(RefusedError, match=r"tiny@1: verify: .*labels\.arrow") as error:
            await operate(server, lambda admin: admin.load_version(1))
        assert error.value.reason == "LOAD_REFUSED"
        assert server.current().version == 2


async def test_the_serving_alias_moves_what_serves(repository: Path) -> None:
    async with running_server(repository) as server:
        model = await operate(server, lambda admin: admin.set_alias("stable", 1))
        assert (model.serving_version, model.aliases) == (1, {"stable": 1})
        model = await operate(server, lambda admin: admin.remove_alias("stable"))
        assert (model.serving_version, model.aliases) == (2, {})
        model = await operate(server, lambda admin: admin.set_alias("other", 1))
        assert (model.serving_version, model.aliases) == (2, {"other": 1})


async def test_an_alias_on_a_version_that_is_refused_stays_where_it_was(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "stable", 2)
    give_other_answers(repository, publish_tiny(repository, seed=2))
    async with running_server(repository) as server:
        with pytest.raises(RefusedError, match="tiny@3: gate: "):
            await operate(server, lambda admin: admin.set_alias("stable", 3))
        assert server.current().version == 2
    assert Repository(repository).aliases("tiny") == {"stable": 2}


async def test_a_wrong_alias_is_refused(repository: Path) -> None:
    async with running_server(repository) as server:
        with pytest.raises(InvalidArgumentError, match="alias: expected a lower-case letter"):
            await operate(server, lambda admin: admin.set_alias("No", 1))
        with pytest.raises(NotFoundError, match="no alias 'tiny@none'"):
            await operate(server, lambda admin: admin.remove_alias("none"))


async def test_a_rollback_needs_no_load_and_outlives_a_restart(repository: Path) -> None:
    async with running_server(repository) as server:
        publish_tiny(repository, seed=2)
        await scan(server)
        assert (server.current().version, loads(server)) == (3, 2)
        model = await operate(server, AdminClient.roll_back)
        assert (model.serving_version, model.aliases) == (2, {"stable": 2})
        assert (await server.ask("topic7")).version == 2
        publish_tiny(repository, seed=3)
        await scan(server)
        assert (server.current().version, loads(server)) == (2, 2)
    async with running_server(repository) as server:
        assert server.current().version == 2


async def test_a_rollback_goes_on_while_another_version_is_being_loaded(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(repository) as server:
        publish_tiny(repository, seed=2)
        await scan(server)
        publish_tiny(repository, seed=3)
        with Held(monkeypatch) as held:
            scanning = asyncio.create_task(scan(server))
            await asyncio.to_thread(held.entered.wait)
            model = await operate(server, AdminClient.roll_back)
            assert version_of(model, 4).state == "loading"
            assert version_of(model, 4).detail == "warmup"
            held.released.set()
            await scanning
        assert (model.serving_version, server.current().version) == (2, 2)


async def test_a_further_rollback_loads_what_is_not_in_memory(repository: Path) -> None:
    publish_tiny(repository, seed=2)
    async with running_server(repository) as server:
        for version in (2, 1):
            model = await operate(server, AdminClient.roll_back)
            assert (model.serving_version, model.aliases) == (version, {"stable": version})
        with pytest.raises(UnsupportedError, match="no version before 1"):
            await operate(server, AdminClient.roll_back)
        model = await operate(server, lambda admin: admin.roll_back(3))
        assert model.serving_version == 3


async def test_without_a_serving_alias_there_is_no_rollback(repository: Path) -> None:
    async with running_server(repository, serve_alias="") as server:
        with pytest.raises(UnsupportedError, match="serve_alias is empty"):
            await operate(server, AdminClient.roll_back)


async def test_aliases_that_cannot_be_read_are_told_and_nothing_moves(repository: Path) -> None:
    async with running_server(repository) as server:
        (repository / "tiny" / "aliases.json").write_text("{", encoding="utf-8")
        with pytest.raises(UnsupportedError, match=r"aliases\.json") as error:
            await operate(server, AdminClient.roll_back)
        assert error.value.reason == "REPOSITORY_UNUSABLE"
        assert server.current().version == 2


@pytest.mark.parametrize("policy", ["auto", "drain"])
async def test_an_operation_goes_on_where_its_caller_gives_up(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    policy: str,
) -> None:
    Repository(repository).set_alias("tiny", "stable", 2)
    give_other_answers(repository, publish_tiny(repository, seed=2))
    async with (
        running_server(repository, reload_policy=policy) as server,
        grpc.aio.insecure_channel(server.readiness.admin) as channel,
    ):
        stub = model_admin_pb2_grpc.ModelAdminServiceStub(channel)
        with Held(monkeypatch) as held:
            call = stub.SetAlias(admin_pb.SetAliasRequest(alias="stable", version=3))
            sent = asyncio.ensure_future(call)
            await asyncio.to_thread(held.entered.wait)
            assert Repository(repository).aliases("tiny") == {"stable": 3}
            sent.cancel()
            await until(lambda: "nobody waits for an operation" in caplog.text)
        await until(lambda: "nobody waited for failed: tiny@3: gate: " in caplog.text)
        assert Repository(repository).aliases("tiny") == {"stable": 2}
        assert (await server.ask("topic7")).version == 2


async def test_operations_that_write_aliases_wait_for_each_other(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_other_answers(repository, publish_tiny(repository, seed=2))
    Repository(repository).set_alias("tiny", "stable", 2)
    async with running_server(repository) as server:
        await operate(server, lambda admin: admin.load_version(1))
        with Held(monkeypatch) as held:
            bad = asyncio.create_task(operate(server, lambda admin: admin.set_alias("stable", 3)))
            await asyncio.to_thread(held.entered.wait)
            back = asyncio.create_task(operate(server, AdminClient.roll_back))
            held.released.set()
            with pytest.raises(RefusedError, match="tiny@3: gate: "):
                await bad
            assert (await back).serving_version == 1
        assert server.current().version == 1
    assert Repository(repository).aliases("tiny") == {"stable": 1}


async def test_a_rollback_is_not_undone_by_what_a_scan_saw_before(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish_tiny(repository, "aaa")
    async with running_server(repository) as server:
        publish_tiny(repository, seed=2)
        await scan(server)
        publish_tiny(repository, "aaa", seed=1)
        with Held(monkeypatch) as held:
            scanning = asyncio.create_task(scan(server))
            await asyncio.to_thread(held.entered.wait)
            model = await operate(server, lambda admin: admin.roll_back(model="tiny"))
            assert (model.serving_version, model.aliases) == (2, {"stable": 2})
            caplog.clear()
            caplog.set_level("INFO")
            held.released.set()
            await scanning
        await scan(server)
        assert (server.current("aaa").version, server.current().version) == (2, 2)
    assert "aaa@2 serves" in caplog.text
    assert "tiny@3 serves" not in caplog.text


async def test_a_rollback_during_a_load_that_fails_is_not_undone_by_the_next_best(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(repository) as server:
        await operate(server, lambda admin: admin.load_version(1))
        publish_tiny(repository, seed=2)
        await operate(server, lambda admin: admin.load_version(3))
        give_other_answers(repository, publish_tiny(repository, seed=3))
        with Held(monkeypatch) as held:
            scanning = asyncio.create_task(scan(server))
            await asyncio.to_thread(held.entered.wait)
            await operate(server, lambda admin: admin.roll_back(1))
            swapped = server.metric("model_last_reload_timestamp_seconds", model="tiny")
            held.released.set()
            await scanning
        await scan(server)
        assert server.current().version == 1
        assert server.metric("model_last_reload_timestamp_seconds", model="tiny") == swapped


async def test_an_alias_whose_version_is_gone_is_put_back_and_can_be_removed(
    repository: Path,
) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    give_other_answers(repository, publish_tiny(repository, seed=2))
    async with running_server(repository) as server:
        shutil.rmtree(Repository(repository).path_of("tiny", 1))
        with pytest.raises(RefusedError, match="tiny@3: gate: "):
            await operate(server, lambda admin: admin.set_alias("stable", 3))
        assert Repository(repository).aliases("tiny") == {"stable": 1}
        model = await operate(server, lambda admin: admin.remove_alias("stable"))
        assert (model.serving_version, model.aliases) == (2, {})


async def test_what_was_refused_is_told_even_if_the_alias_cannot_be_put_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "read-only file system")

    give_other_answers(repository, publish_tiny(repository, seed=2))
    Repository(repository).set_alias("tiny", "stable", 2)
    async with running_server(repository) as server:
        monkeypatch.setattr(Repository, "restore_aliases", fail)
        with pytest.raises(RefusedError, match="tiny@3: gate: "):
            await operate(server, lambda admin: admin.set_alias("stable", 3))
    assert "the aliases of tiny cannot be put back: [Errno 30]" in caplog.text
