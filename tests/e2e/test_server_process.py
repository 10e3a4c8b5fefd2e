"""`motherlode serve` as a process: its start, its signals, its ports."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from motherlode.core.repository import Repository
from motherlode.server.app import Server
from motherlode.server.config import load_config
from motherlode.server.gate import warm_up
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc
from tests.support.bundles import publish_tiny
from tests.support.servers import (
    ANY_PORT,
    TIMEOUT_S,
    Barrier,
    running_server,
    server_process,
    text_request,
)
from tests.support.waiting import until

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "repository")
    return tmp_path / "repository"


def ask(address: str, text: str = "topic7 filler") -> pb.TopKResponse:
    with grpc.insecure_channel(address) as channel:
        stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        response: pb.TopKResponse = stub.TopK(text_request(text), timeout=TIMEOUT_S)
    return response


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        check = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    return bool(check.status == health_pb2.HealthCheckResponse.SERVING)


def run_serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "motherlode.cli.main", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_it_serves_once_it_says_so_and_ends_well_on_sigterm(
    repository: Path, tmp_path: Path
) -> None:
    with server_process(repository, tmp_path / "ready.json") as server:
        assert server.models == {"tiny": 1}
        with grpc.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("motherlode.v1.RetrievalService", "model:tiny"):
                check = stub.Check(
                    health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S
                )
                assert check.status == health_pb2.HealthCheckResponse.SERVING
        assert ask(server.address).labels[0] == 7
        page = server.scrape()
        assert server.stop() == 0
    exported = {
        line.split()[2] for line in page.splitlines() if line.startswith("# TYPE motherlode_")
    }
    documented = set(
        re.findall(r"^\| `(motherlode_\w+)` \|", OPERATIONS.read_text("utf-8"), re.MULTILINE)
    )
    assert {name for name in exported if not name.endswith("_created")} == documented
    assert 'motherlode_requests_total{code="OK",method="TopK",model="tiny",version="1"} 1.0' in page
    assert any("stopped" in line for line in server.log)


def test_a_second_signal_stops_it_at_once(repository: Path, tmp_path: Path) -> None:
    flags = ["--set", "drain_delay_s=3600"]
    with server_process(repository, tmp_path / "ready.json", flags) as server:
        server.process.send_signal(signal.SIGTERM)
        asyncio.run(until(lambda: not is_serving(server.address)))
        assert ask(server.address).labels[0] == 7
        assert server.stop() == 0


def test_a_signal_makes_it_look_for_new_versions(repository: Path, tmp_path: Path) -> None:
    flags = ["--set", "reload_interval_s=3600"]
    with server_process(repository, tmp_path / "ready.json", flags) as server:
        publish_tiny(repository, seed=1)
        server.process.send_signal(signal.SIGHUP)
        asyncio.run(until(lambda: ask(server.address).version == 2))


def test_the_interval_alone_brings_new_versions(repository: Path, tmp_path: Path) -> None:
    flags = ["--set", "reload_interval_s=0.05", "--model", "tiny"]
    with server_process(repository, tmp_path / "ready.json", flags) as server:
        publish_tiny(repository, seed=1)
        asyncio.run(until(lambda: ask(server.address).version == 2))
        assert server.stop(signal.SIGINT) == 0


def test_settings_come_from_the_file_and_flags_overrule_it(
    repository: Path, tmp_path: Path
) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    publish_tiny(repository, seed=1)
    file = tmp_path / "server.toml"
    file.write_text('max_k = 2\nlisten = "not an address"\nserve_alias = "stable"', "utf-8")
    flags = ["--config", str(file)]
    with server_process(repository, tmp_path / "ready.json", flags) as server:
        assert server.models == {"tiny": 1}
        with pytest.raises(grpc.RpcError, match="k: expected 1 to 2, got 3"):
            ask(server.address)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--repository", "{folder}/none"], "repository: expected a folder"),
        (["--repository", "{folder}", "--listen", "8001"], "listen: expected HOST:PORT"),
        (["--repository", "{folder}", "--set", "max_kk=1"], "max_kk: expected one of"),
        (["--repository", "{folder}", "--set", "max_k"], "--set: expected NAME=VALUE"),
        ([], "repository: expected a value"),
    ],
)
def test_a_wrong_setting_is_one_line_and_the_status_of_wrong_usage(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    ended = run_serve(*(flag.format(folder=tmp_path) for flag in flags))
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.asyncio
@pytest.mark.parametrize("port", ["listen", "metrics", "admin"])
async def test_a_taken_port_is_one_line_and_names_the_setting(repository: Path, port: str) -> None:
    async with running_server(repository) as server:
        taken = getattr(server.readiness, port)
        addresses = {"listen": ANY_PORT, "metrics": ANY_PORT, "admin": ANY_PORT} | {port: taken}
        flags = [text for name, value in addresses.items() for text in (f"--{name}", value)]
        ended = await asyncio.to_thread(run_serve, "--repository", str(repository), *flags)
    assert ended.returncode == 2
    assert f"{port}: expected an address that is free" in ended.stderr


def test_the_ready_file_says_where_and_what(repository: Path, tmp_path: Path) -> None:
    with server_process(repository, tmp_path / "ready.json") as server:
        document = json.loads((tmp_path / "ready.json").read_text("utf-8"))
        assert document["pid"] == server.process.pid
        assert document["models"] == {"tiny": 1}
        assert document["listen"] == server.address


@pytest.mark.asyncio
async def test_a_stopping_server_answers_what_it_has_and_refuses_what_comes(
    repository: Path,
) -> None:
    async with running_server(repository, drain_grace_s=TIMEOUT_S) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        with Barrier(server.current().retriever) as barrier:
            running = asyncio.create_task(server.ask("topic1"))
            await asyncio.to_thread(barrier.wait_entered)
            queued = asyncio.create_task(server.ask("topic2"))
            await until(lambda: server.metric("queue_depth") == 1)
            stopping = asyncio.create_task(server.server.stop())
            await until(lambda: server.server.is_draining)
            for service in ("", "motherlode.v1.RetrievalService", "model:tiny"):
                check = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert check.status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await server.ask("topic3")
            barrier.release()
            answers = await asyncio.gather(running, queued)
        await stopping
    assert [answer.labels[0] for answer in answers] == [1, 2]
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    metadata = dict(error.value.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "DRAINING"


@pytest.mark.asyncio
async def test_a_stopping_server_ends_its_streams_after_their_answers(repository: Path) -> None:
    more = asyncio.Event()

    async def requests() -> Any:
        yield pb.TopKStreamRequest(request=text_request("topic1"))
        await more.wait()

    async with running_server(repository, drain_grace_s=TIMEOUT_S) as server:
        answers = aiter(server.stub.TopKStream(requests()))
        assert (await anext(answers)).response.labels[0] == 1
        stopping = asyncio.create_task(server.server.stop())
        with pytest.raises(grpc.aio.AioRpcError, match="stopping") as error:
            await anext(answers)
        await stopping
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.asyncio
async def test_a_server_that_cannot_finish_in_time_stops_regardless(repository: Path) -> None:
    async with running_server(repository, drain_grace_s=0.0) as server:
        with Barrier(server.current().retriever) as barrier:
            stuck = asyncio.create_task(server.ask("topic1"))
            await asyncio.to_thread(barrier.wait_entered)
            stopping = asyncio.create_task(server.server.stop())
            with pytest.raises(grpc.aio.AioRpcError):
                await stuck
            barrier.release()
            await stopping


@pytest.mark.asyncio
async def test_a_server_is_not_ready_before_its_models_are_warm(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()

    def slow_warm_up(*arguments: Any) -> float:
        entered.set()
        assert released.wait(TIMEOUT_S)
        return warm_up(*arguments)

    monkeypatch.setattr("motherlode.server.intake.warm_up", slow_warm_up)
    config = load_config(
        None, {"repository": repository, "listen": ANY_PORT, "metrics": ANY_PORT, "admin": ANY_PORT}
    )
    server = Server(config)
    starting = asyncio.create_task(server.start())
    try:
        await asyncio.to_thread(entered.wait, TIMEOUT_S)
        async with grpc.aio.insecure_channel(server.listen_address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            service = health_pb2.HealthCheckRequest(service="motherlode.v1.RetrievalService")
            before = (await health.Check(service)).status
            stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="starting") as error:
                await stub.TopK(text_request("topic1"))
            released.set()
            await starting
            after = (await health.Check(service)).status
            answer = await stub.TopK(text_request("topic1"))
    finally:
        released.set()
        await starting
        await server.close()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert before == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after == health_pb2.HealthCheckResponse.SERVING
    assert answer.labels[0] == 1
