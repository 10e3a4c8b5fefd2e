"""Reloads where memory holds no two versions: admitted, drained, refused or brought back."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from motherlode.clients import AdminClient, AsyncClient, ClientError, RefusedError
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.intake import Intake
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.admin import operate
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import Barrier, RunningServer, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


def room_for(repository: Path, versions: float) -> int:
    """Predicted bytes of so many versions."""
    return int(versions * Repository(repository).manifest("tiny", 1).memory.ram_bytes)


async def scan(server: RunningServer) -> None:
    await server.server.watcher.scan()


async def test_where_two_do_not_fit_the_old_one_is_drained_and_no_retrying_caller_fails(
    repository: Path,
) -> None:
    answers: list[int] = []
    stop = asyncio.Event()

    async def keep_asking(client: AsyncClient) -> None:
        while not stop.is_set():
            answers.append((await client.top_k(["topic7"], 3)).version)

    async with (
        running_server(repository, memory_limit_bytes=room_for(repository, 1.5)) as server,
        AsyncClient(server.address, timeout_s=60) as client,
    ):
        gone = weakref.ref(server.current().retriever)
        askers = [asyncio.create_task(keep_asking(client)) for _ in range(4)]
        await until(lambda: len(answers) > 8)
        publish_tiny(repository, seed=1)
        await scan(server)
        num_before = len(answers)
        await until(lambda: len(answers) > num_before + 8)
        stop.set()
        await asyncio.gather(*askers)
        gc.collect()
        assert gone() is None
        loaded = [one.version for one in server.server.catalog.find("tiny").loaded]
    assert (set(answers), answers[0], answers[-1], loaded) == ({1, 2}, 1, 2, [2])


async def test_a_drain_refuses_calls_with_a_hint_and_answers_those_under_way(
    repository: Path,
) -> None:
    async with running_server(repository, reload_policy="drain") as server:
        slot = server.server.catalog.find("tiny")
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=1)
            scanning = asyncio.create_task(scan(server))
            await until(lambda: slot.is_draining)
            with pytest.raises(grpc.aio.AioRpcError, match="makes way for a new version") as error:
                await server.ask("topic7")
            [model] = await operate(server, AdminClient.list_models)
            barrier.release()
            assert (await early).version == 1
            await scanning
        assert (await server.ask("topic7")).version == 2
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(error.value.trailing_metadata())
    assert b"google.rpc.RetryInfo" in trailers["grpc-status-details-bin"]
    assert [(one.state, one.detail) for one in model.versions] == [
        ("loading", "drain"),
        ("available", ""),
    ]


async def test_after_a_drain_for_a_version_that_fails_the_old_one_is_back(
    repository: Path,
) -> None:
    async with running_server(repository, reload_policy="drain") as server:
        folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=1))
        shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
        forge_manifest(folder)
        await scan(server)
        response = await server.ask("topic7")
        [model] = (await server.info()).models
        await scan(server)
        labels = {"model": "tiny", "result": "failed", "reason": "gate"}
        assert server.metric("model_loads_total", **labels) == 1
    assert (response.version, model.version) == (1, 1)
    assert model.load_error.startswith("tiny@2: gate: ")


async def test_a_version_that_fails_its_hashes_drains_nothing(repository: Path) -> None:
    async with running_server(repository, reload_policy="drain") as server:
        serving = server.current()
        folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=1))
        (folder / "labels.arrow").write_bytes(b"")
        await scan(server)
        assert server.current() is serving
        assert (await server.info()).models[0].load_error.startswith("tiny@2: verify: ")


async def test_calls_that_do_not_end_stop_a_drain(repository: Path) -> None:
    async with running_server(repository, reload_policy="drain", drain_grace_s=0.0) as server:
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=1)
            await scan(server)
            late = asyncio.create_task(server.ask("topic7"))
            barrier.release()
            assert ((await early).version, (await late).version) == (1, 1)
        error = (await server.info()).models[0].load_error
        labels = {"model": "tiny", "result": "failed", "reason": "busy"}
        assert server.metric("model_loads_total", **labels) == 1
    assert error == "tiny@2: drain: calls under way did not end within 0 s"


async def test_kept_versions_go_before_the_serving_one_does(repository: Path) -> None:
    limit = room_for(repository, 2.5)
    async with running_server(repository, memory_limit_bytes=limit, kept_versions=2) as server:
        slot = server.server.catalog.find("tiny")
        loaded = []
        for seed in (1, 2):
            publish_tiny(repository, seed=seed)
            await scan(server)
            loaded.append([one.version for one in slot.loaded])
    assert loaded == [[2, 1], [3, 2]]


async def test_what_does_not_fit_is_refused_and_says_so(repository: Path) -> None:
    publish_tiny(repository, seed=1, num_labels=5000)
    Repository(repository).set_alias("tiny", "stable", 1)
    limit = room_for(repository, 1.5)
    async with running_server(repository, memory_limit_bytes=limit) as server:
        with pytest.raises(RefusedError, match=r"tiny@2: admit: .* bytes are predicted") as error:
            await operate(server, lambda admin: admin.set_alias("stable", 2))
        assert error.value.reason == "LOAD_REFUSED"
        labels = {"model": "tiny", "result": "failed", "reason": "no_room"}
        assert server.metric("model_loads_total", **labels) == 1
        assert (await server.ask("topic7", model=pb.ModelRef(alias="stable"))).version == 1


async def test_a_version_beside_the_serving_one_never_drains_it(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    Repository(repository).set_alias("tiny", "stable", 1)
    limit = room_for(repository, 1.5)
    async with running_server(repository, memory_limit_bytes=limit) as server:
        serving = server.current()
        for ask in (AdminClient.load_version, AdminClient.validate_version):
            with pytest.raises(ClientError, match="tiny@2: admit: "):
                await operate(server, lambda admin, ask=ask: ask(admin, 2))
        assert server.current() is serving


async def test_what_a_drain_was_for_is_gone_before_the_old_one_comes_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Retriever]] = []
    alive_at_read: list[int] = []
    make = Intake._read

    def noted(self: Intake, *arguments: Any) -> Retriever:
        alive_at_read.append(sum(one() is not None for one in read))
        retriever = make(self, *arguments)
        read.append(weakref.ref(retriever))
        return retriever

    monkeypatch.setattr(Intake, "_read", noted)
    async with running_server(repository, reload_policy="drain") as server:
        folder = Repository(repository).path_of("tiny", publish_tiny(repository, seed=1))
        shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
        forge_manifest(folder)
        await scan(server)
        assert (await server.ask("topic7")).version == 1
    assert alive_at_read == [0, 0, 0]


async def test_a_version_is_not_validated_where_there_is_no_room_beside_the_others(
    repository: Path,
) -> None:
    limit = room_for(repository, 2.5)
    async with running_server(repository, memory_limit_bytes=limit) as server:
        for seed in (1, 2):
            publish_tiny(repository, seed=seed)
            if seed == 1:
                await scan(server)
        with pytest.raises(RefusedError, match="no room beside"):
            await operate(server, lambda admin: admin.validate_version(3))
        assert [one.version for one in server.server.catalog.find("tiny").loaded] == [2, 1]


async def test_a_drain_that_waits_ends_when_an_operator_chooses_another_version(
    repository: Path,
) -> None:
    publish_tiny(repository, seed=1)
    settings = {"reload_policy": "drain", "drain_grace_s": 60.0}
    async with running_server(repository, **settings) as server:
        await operate(server, lambda admin: admin.load_version(1))
        slot = server.server.catalog.find("tiny")
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=2)
            scanning = asyncio.create_task(scan(server))
            await until(lambda: slot.is_draining)
            model = await operate(server, AdminClient.roll_back)
            await scanning
            assert (model.serving_version, slot.is_draining) == (1, False)
            chosen = asyncio.create_task(server.ask("topic7"))
            barrier.release()
            assert ((await early).version, (await chosen).version) == (2, 1)
        await scan(server)
        assert (server.current().version, slot.load_error) == (1, "")
        health = health_pb2_grpc.HealthStub(server.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="model:tiny"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        outcomes = [("ok", ""), ("failed", "busy")]
        counts = [
            server.metric("model_loads_total", model="tiny", result=result, reason=reason)
            for result, reason in outcomes
        ]
        assert counts == [2, None]
