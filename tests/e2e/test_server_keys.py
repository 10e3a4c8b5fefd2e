"""A server whose callers need keys, asked over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.clients import AccessError, AsyncClient, Client, InvalidArgumentError
from motherlode.core.errors import ConfigError
from motherlode.server import roles
from motherlode.server.batcher import Batcher
from motherlode.server.call import Call
from motherlode.server.keys import entry_of, new_key
from motherlode.server.roles import Role
from motherlode.server.shield import MethodTable
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.certificates import Authority
from tests.support.servers import (
    TIMEOUT_S,
    RunningServer,
    ServerProcess,
    running_server,
    server_process,
    text_request,
)

TOP_K = "/motherlode.v1.RetrievalService/TopK"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"


class Keys:
    """A keys file with a key for each role."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader, self.admin, self.expired = new_key(), new_key(), new_key()
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        self.write(
            (self.reader, "reader", Role.READ, None),
            (self.admin, "operator", Role.ADMIN, None),
            (self.expired, "former", Role.READ, yesterday),
        )

    def write(self, *keys: tuple[str, str, Role, date | None]) -> None:
        """Replaces the file."""
        self.path.write_text("\n\n".join(entry_of(*key) for key in keys), encoding="utf-8")


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    publish_tiny(folder)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.toml")


async def call(
    server: RunningServer, method: str, *headers: str, request: bytes = b""
) -> tuple[str, str]:
    """Code and reason with which a call ends; the bytes of its answer do not matter."""
    metadata = [("authorization", header) for header in headers]
    asked = server.channel.unary_unary(method)
    try:
        await asked(request, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return error.code().name, reason_of(error)
    return "OK", ""


def reason_of(error: Any) -> str:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "motherlode"
    return str(info.reason)


@pytest.mark.asyncio
async def test_a_call_needs_a_key_that_is_known_and_has_not_expired(
    repository: Path, keys: Keys
) -> None:
    request = text_request("topic7").SerializeToString()
    cases = [
        ([], "UNAUTHENTICATED", "KEY_MISSING"),
        ([""], "UNAUTHENTICATED", "KEY_MISSING"),
        ([keys.reader], "UNAUTHENTICATED", "KEY_MISSING"),
        ([f"Basic {keys.reader}"], "UNAUTHENTICATED", "KEY_MISSING"),
        ([f"Bearer {keys.reader}", f"Bearer {new_key()}"], "UNAUTHENTICATED", "KEY_MISSING"),
        (["Bearer "], "UNAUTHENTICATED", "KEY_UNKNOWN"),
        ([f"Bearer {new_key()}"], "UNAUTHENTICATED", "KEY_UNKNOWN"),
        ([f"Bearer {keys.reader[:-1]}"], "UNAUTHENTICATED", "KEY_UNKNOWN"),
        ([f"Bearer {keys.expired}"], "UNAUTHENTICATED", "KEY_EXPIRED"),
        ([f"Bearer {keys.reader}"], "OK", ""),
        ([f"bearer  {keys.admin}"], "OK", ""),
    ]
    async with running_server(repository, keys_file=keys.path) as server:
        for headers, code, reason in cases:
            assert await call(server, TOP_K, *headers, request=request) == (code, reason), headers
        refused = [
            server.metric("access_refused_total", reason=reason)
            for reason in ("key_missing", "key_unknown", "key_expired", "permission_denied")
        ]
    assert refused == [5, 3, 1, 0]


@pytest.mark.asyncio
async def test_a_reader_may_not_change_what_is_served_and_an_admin_is_noted(
    repository: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "motherlode.server.authorization")
    async with running_server(repository, keys_file=keys.path) as server:
        for method in (LOAD, "/motherlode.v1.RetrievalService/Unheard", "/of.Nobody/Known"):
            denied = await call(server, method, f"Bearer {keys.reader}")
            assert denied == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert not caplog.records
        assert await call(server, LOAD, f"Bearer {keys.admin}") == (
            "UNIMPLEMENTED",
            "UNIMPLEMENTED",
        )
        assert server.metric("access_refused_total", reason="permission_denied") == 3
    assert f"{LOAD} is called with the key operator" in caplog.text
    assert keys.admin not in caplog.text


@pytest.mark.asyncio
async def test_health_is_open_and_reflection_is_not(repository: Path, keys: Keys) -> None:
    async def list_services() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with running_server(repository, keys_file=keys.path) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(service="model:tiny"))).status == 1
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == 1
        watch.cancel()
        reflect = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reflect(list_services()).read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        known = (("authorization", f"Bearer {keys.reader}"),)
        answer = await reflect(list_services(), metadata=known).read()
        assert answer.list_services_response.service


@pytest.mark.asyncio
async def test_a_stream_is_refused_before_it_begins(repository: Path, keys: Keys) -> None:
    async def requests() -> Any:
        await asyncio.Event().wait()
        yield pb.TopKStreamRequest()

    async with running_server(repository, keys_file=keys.path) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.TopKStream(requests()).read()
        assert reason_of(refused.value) == "KEY_MISSING"
        async with AsyncClient(server.address, key=keys.reader, timeout_s=TIMEOUT_S) as client:
            results = [one async for one in client.top_k_stream([["topic7"], ["topic3"]], k=1)]
    assert [int(one.labels[0]) for one in results] == [7, 3]


@pytest.mark.asyncio
async def test_the_keys_are_those_of_the_file_as_it_is_now(
    repository: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository, keys_file=keys.path) as server:
        security, newcomer = server.server.security, new_key()

        async def codes() -> list[str]:
            request = text_request("topic7").SerializeToString()
            tokens = (keys.reader, newcomer)
            return [
                (await call(server, TOP_K, f"Bearer {token}", request=request))[0]
                for token in tokens
            ]

        assert await codes() == ["OK", "UNAUTHENTICATED"]
        keys.write((newcomer, "newcomer", Role.READ, None))
        await security.look()
        assert await codes() == ["UNAUTHENTICATED", "OK"]
        keys.path.write_text("[[keys]]\n", encoding="utf-8")
        await security.look()
        assert await codes() == ["UNAUTHENTICATED", "OK"]
        assert server.metric("credentials_stale", kind="keys") == 1
        assert "the keys file stays as it was" in caplog.text
        keys.path.unlink()
        await security.look()
        assert await codes() == ["UNAUTHENTICATED", "OK"]


@pytest.mark.asyncio
async def test_both_ports_ask_for_keys(repository: Path, keys: Keys) -> None:
    async with (
        running_server(repository, keys_file=keys.path) as server,
        grpc.aio.insecure_channel(server.readiness.admin) as channel,
    ):
        server.channel = channel
        assert await call(server, "/any.Service/Method") == ("UNAUTHENTICATED", "KEY_MISSING")


@pytest.mark.asyncio
async def test_every_method_of_every_service_stands_in_the_table(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: set[str] = set()
    add = MethodTable.add_registered_method_handlers

    def note_and_add(self: MethodTable, service: str, handlers: dict[str, Any]) -> None:
        registered.update(f"/{service}/{name}" for name in handlers)
        add(self, service, handlers)

    monkeypatch.setattr(MethodTable, "add_registered_method_handlers", note_and_add)
    async with running_server(repository):
        pass
    assert {TOP_K, LOAD, "/grpc.health.v1.Health/Check"} <= registered
    assert "ServerReflectionInfo" in {method.split("/")[2] for method in registered}
    listed = roles.OPEN | roles.READ | roles.ADMIN
    services = roles.ADMIN_SERVICES
    assert {one for one in registered if one.split("/")[1] not in services} - listed == set()


def test_no_method_has_two_roles() -> None:
    assert not roles.OPEN & roles.READ
    assert not (roles.OPEN | roles.READ) & roles.ADMIN
    assert not [one for one in roles.OPEN | roles.READ if one.split("/")[1] in roles.ADMIN_SERVICES]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.com:8003"])
@pytest.mark.asyncio
async def test_an_admin_port_that_others_reach_needs_keys_or_certificates(
    repository: Path, address: str
) -> None:
    with pytest.raises(ConfigError, match="admin: expected an address of this machine alone"):
        async with running_server(repository, admin=address):
            pass


@pytest.mark.asyncio
async def test_an_admin_port_that_others_reach_is_allowed_where_something_guards_it(
    repository: Path, keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    certificates = authority.issue().settings
    for settings in (
        {"allow_open_admin": True},
        {"tls_client_ca": authority.root, **certificates},
        {"keys_file": keys.path, **certificates},
    ):
        async with running_server(repository, admin="0.0.0.0:0", **settings) as server:
            assert server.readiness.admin.startswith("0.0.0.0:")
    assert not caplog.records
    async with running_server(repository, admin="0.0.0.0:0", keys_file=keys.path):
        assert "admin: without tls_certificate, keys travel in clear text" in caplog.text


@pytest.fixture
def guarded(repository: Path, keys: Keys, tmp_path: Path) -> Iterator[ServerProcess]:
    flags = ["--set", f"keys_file={keys.path}"]
    with server_process(repository, tmp_path / "ready.json", flags) as process:
        yield process


def test_clients_and_commands_send_their_key(
    guarded: ServerProcess,
    keys: Keys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = guarded.address
    with Client(address, key=keys.reader) as client:
        assert client.top_k(["topic7"], k=1).labels[0] == 7
    with Client(address) as client, pytest.raises(AccessError, match="a key is needed") as refused:
        client.top_k(["topic7"], k=1)
    assert refused.value.reason == "KEY_MISSING"

    key_file, queries = tmp_path / "key", tmp_path / "queries.jsonl"
    key_file.write_text(keys.reader + "\n", encoding="utf-8")
    queries.write_text('{"text": "topic7"}\n', encoding="utf-8")
    query = ["query", "--target", address, "--text", "topic7", "-k", "1"]
    load = ["bench", "--target", address, "--queries", str(queries), "--duration", "100ms", "-k=1"]
    for command in (query, load):
        assert main(command) == 1
        assert "a key is needed" in capsys.readouterr().err
        assert main([*command, "--key-file", str(key_file)]) == 0
        monkeypatch.setenv("MOTHERLODE_KEY", keys.reader)
        assert main(command) == 0
        monkeypatch.delenv("MOTHERLODE_KEY")
        capsys.readouterr()


def test_the_admin_command_sends_its_key(
    guarded: ServerProcess, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["admin", "list", "--target", guarded.admin]
    assert main(command) == 1
    assert "a key is needed" in capsys.readouterr().err
    for key, status in ((keys.reader, 1), (keys.admin, 0)):
        (tmp_path / "key").write_text(key, encoding="utf-8")
        assert main([*command, "--key-file", str(tmp_path / "key")]) == status
    shown = capsys.readouterr()
    assert "needs a key of the role admin" in shown.err
    assert "tiny" in shown.out


@pytest.mark.asyncio
async def test_callers_share_the_server_by_their_keys_where_they_have_some(
    repository: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[str] = []
    submit = Batcher.submit

    def noted(self: Batcher, call: Call) -> Any:
        callers.append(call.caller)
        return submit(self, call)

    monkeypatch.setattr(Batcher, "submit", noted)
    async with running_server(repository, keys_file=keys.path) as server:
        request = text_request("topic7", k=1).SerializeToString()
        for key in (keys.reader, keys.admin):
            assert (await call(server, TOP_K, f"Bearer {key}", request=request))[0] == "OK"
    async with running_server(repository) as server:
        await server.ask("topic7", k=1)
    assert callers[:2] == ["reader", "operator"]
    assert callers[2].startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("content", ["", "two words"])
def test_a_key_file_holds_one_key(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    command = ["query", "--target", "127.0.0.1:1", "--text", "a", "--key-file", str(path)]
    assert main(command) == 2
    assert "--key-file: expected a file that holds one key" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_sends_no_key_in_clear_text_to_another_machine(kind: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="tls: expected tls, as the key would travel"):
        kind("example.com:8001", key=new_key())


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schlüssel"])
def test_a_client_refuses_what_cannot_be_a_key(key: str) -> None:
    with pytest.raises(InvalidArgumentError, match="key: expected printable ASCII"):
        Client("127.0.0.1:1", key=key)


@pytest.mark.asyncio
async def test_the_command_makes_a_key_that_the_server_takes(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "reader", "--expires", "2999-12-31"]) == 0
    key, _, entry = capsys.readouterr().out.partition("\n\n")
    assert main(["keys", "new", "operator", "--role", "admin", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    path = tmp_path / "keys.toml"
    path.write_text(f"{entry}\n{made['entry']}\n", encoding="utf-8")
    async with running_server(repository, keys_file=path) as server:
        for one in (key, made["key"]):
            async with AsyncClient(server.address, key=one) as client:
                assert (await client.top_k(["topic7"], k=1)).labels[0] == 7


def test_the_command_refuses_a_wrong_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "a b"]) == 2
    assert "name: expected a letter or digit" in capsys.readouterr().err
