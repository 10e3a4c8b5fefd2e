"""A server with certificates, asked over real sockets."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from motherlode.cli import main as main_module
from motherlode.cli.main import main
from motherlode.clients import (
    AsyncClient,
    Client,
    InvalidArgumentError,
    Tls,
    UnavailableError,
)
from motherlode.core.errors import ConfigError
from tests.support.bundles import publish_tiny
from tests.support.certificates import HOST, Authority, Issued
from tests.support.servers import TIMEOUT_S, RunningServer, running_server, server_process
from tests.support.waiting import until

# Channels to one address share a connection, which would spare them the handshake.
ALONE = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "configure_logging", lambda *_: None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    publish_tiny(folder)
    return folder


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def server_files(authority: Authority) -> Issued:
    return authority.issue()


def client(server: RunningServer, tls: Tls | None, *, admin: bool = False) -> AsyncClient:
    address = server.readiness.admin if admin else server.address
    return AsyncClient(address, timeout_s=TIMEOUT_S, tls=tls, options=ALONE)


async def first_label(server: RunningServer, tls: Tls | None) -> int:
    async with client(server, tls) as asked:
        return int((await asked.top_k(["topic7"], k=1)).labels[0])


async def is_refused(server: RunningServer, tls: Tls | None, why: str | None = None) -> bool:
    async with client(server, tls) as asked:
        with pytest.raises(UnavailableError, match=why):
            await asked.server_info()
    return True


def shown_certificate(address: str) -> bytes:
    host, port = address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), TIMEOUT_S) as plain,
        context.wrap_socket(plain) as shaken,
    ):
        shown = shaken.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def certificate_of(files: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        re.findall(r"-----BEGIN[^-]+-----[^-]+-----END[^-]+-----", files.certificate.read_text())[0]
    )


@pytest.mark.asyncio
async def test_those_who_trust_the_authority_are_answered_and_no_others(
    repository: Path, authority: Authority, server_files: Issued, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with running_server(repository, **server_files.settings) as server:
        assert await first_label(server, Tls(ca=authority.root)) == 7
        assert await is_refused(server, Tls(ca=stranger.root), "no authority that this client")
        assert await is_refused(server, Tls(), "no authority that this client trusts")
        assert await is_refused(server, None, "it hung up: it may want TLS")
        async with client(server, Tls(ca=authority.root), admin=True) as admin:
            assert await admin.health("tiny") == "serving"
    async with running_server(repository) as server:
        assert await is_refused(server, Tls(ca=authority.root), "it does not speak TLS")


@pytest.mark.asyncio
async def test_nothing_older_than_tls_1_2_is_spoken(repository: Path, server_files: Issued) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with running_server(repository, **server_files.settings) as server:
        host, port = server.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.close()
        hello = (
            bytes.fromhex("160301002f0100002b0301") + bytes(32) + b"\0\0\x04\xc0\x13\x00\x2f\1\0"
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(hello)
        answer = await asyncio.wait_for(reader.read(1), TIMEOUT_S)
        writer.close()
    # An alert (21) or the end, and no handshake (22).
    assert answer in {b"", b"\x15"}


@pytest.mark.asyncio
async def test_with_a_client_authority_only_its_clients_are_let_in(
    repository: Path, authority: Authority, server_files: Issued, tmp_path: Path
) -> None:
    known, stranger = Authority(tmp_path, "clients"), Authority(tmp_path, "stranger")
    ours, theirs = known.issue("ours"), stranger.issue("theirs")
    settings = server_files.settings | {"tls_client_ca": known.root}
    async with running_server(repository, **settings) as server:
        assert await first_label(server, Tls(authority.root, ours.certificate, ours.key)) == 7
        assert await is_refused(server, Tls(authority.root))
        assert await is_refused(server, Tls(authority.root, theirs.certificate, theirs.key))


@pytest.mark.asyncio
async def test_a_renewed_certificate_is_shown_and_no_call_fails_meanwhile(
    repository: Path, authority: Authority, server_files: Issued
) -> None:
    tls, is_over, num_answers = Tls(ca=authority.root), False, 0

    async def ask_on_one_connection() -> None:
        nonlocal num_answers
        async with client(server, tls) as asked:
            while not is_over:
                await asked.top_k(["topic7"], k=1)
                num_answers += 1

    async def ask_on_many() -> None:
        nonlocal num_answers
        while not is_over:
            await first_label(server, tls)
            num_answers += 1

    async with running_server(repository, **server_files.settings) as server:
        callers = [asyncio.create_task(ask()) for ask in (ask_on_one_connection, ask_on_many)]
        for _ in range(5):
            authority.issue()
            await server.server.security.look()
            for address in (server.address, server.readiness.admin):
                shown = await asyncio.to_thread(shown_certificate, address)
                assert shown == certificate_of(server_files)
            already = num_answers
            await until(lambda already=already: num_answers > already + 10)  # type: ignore[misc]
        is_over = True
        await asyncio.gather(*callers)


@pytest.mark.asyncio
async def test_a_renewed_client_authority_counts_from_the_next_handshake_on(
    repository: Path, authority: Authority, server_files: Issued, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path / "old", "clients"), Authority(tmp_path / "new", "clients")
    first, second = old.issue("first"), new.issue("second")
    settings = server_files.settings | {"tls_client_ca": old.root}
    async with running_server(repository, **settings) as server:
        assert await is_refused(server, Tls(authority.root, second.certificate, second.key))
        old.root.write_bytes(new.root.read_bytes())
        await server.server.security.look()
        assert await first_label(server, Tls(authority.root, second.certificate, second.key)) == 7
        assert await is_refused(server, Tls(authority.root, first.certificate, first.key))


@pytest.mark.asyncio
async def test_after_a_broken_renewal_the_old_certificate_is_shown_and_a_metric_says_so(
    repository: Path, authority: Authority, server_files: Issued
) -> None:
    other = authority.issue("other")
    async with running_server(repository, **server_files.settings) as server:
        before = await asyncio.to_thread(shown_certificate, server.address)
        assert server.metric("credentials_stale", kind="certificate") == 0
        expiry = server.metric("tls_certificate_expiry_timestamp_seconds", certificate="server")
        assert expiry == server.server.security._certificates.files.content.expires_s  # type: ignore[union-attr]
        server_files.key.write_bytes(other.key.read_bytes())
        await server.server.security.look()
        assert server.metric("credentials_stale", kind="certificate") == 1
        assert await asyncio.to_thread(shown_certificate, server.address) == before
        assert await first_label(server, Tls(ca=authority.root)) == 7


def test_a_process_takes_a_renewed_certificate_at_a_signal(
    repository: Path, authority: Authority, server_files: Issued, tmp_path: Path
) -> None:
    names = [f"--set={name}={path}" for name, path in server_files.settings.items()]
    flags = [*names, "--set", "reload_interval_s=3600"]
    with server_process(repository, tmp_path / "ready.json", flags) as process:
        authority.issue()
        process.process.send_signal(signal.SIGHUP)
        asyncio.run(
            until(lambda: any("the certificate was read again" in line for line in process.log))
        )
        assert shown_certificate(process.address) == certificate_of(server_files)
        with Client(process.address, tls=Tls(ca=authority.root)) as asked:
            assert asked.top_k(["topic3"], k=1).labels[0] == 3


@pytest.mark.asyncio
async def test_a_server_looks_at_its_certificate_again_and_again(
    repository: Path, authority: Authority, server_files: Issued
) -> None:
    async with running_server(
        repository, **server_files.settings, reload_interval_s=0.01
    ) as server:
        authority.issue()
        renewed = certificate_of(server_files)
        for _ in range(1000):
            if await asyncio.to_thread(shown_certificate, server.address) == renewed:
                return
    raise AssertionError("the renewed certificate was never shown")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.key.unlink(), "tls_key: expected a readable file"),
        (lambda files: files.certificate.write_text("x"), "tls_certificate: expected certificates"),
    ],
)
async def test_a_server_does_not_start_with_files_that_cannot_be_used(
    repository: Path, server_files: Issued, spoil: Callable[[Issued], object], message: str
) -> None:
    spoil(server_files)
    with pytest.raises(ConfigError, match=message):
        async with running_server(repository, **server_files.settings):
            pass


def test_commands_take_the_files_as_flags(
    repository: Path,
    authority: Authority,
    server_files: Issued,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = Authority(tmp_path, "clients")
    ours = known.issue("ours")
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"text": "topic7"}\n', encoding="utf-8")
    settings = server_files.settings | {"tls_client_ca": known.root}
    names = [f"--set={name}={path}" for name, path in settings.items()]
    access = ["--tls-ca", str(authority.root), "--tls-cert", str(ours.certificate)]
    access += ["--tls-key", str(ours.key)]
    with server_process(repository, tmp_path / "ready.json", names) as process:
        target = ["--target", process.address]
        assert main(["query", *target, "--text", "topic7", "-k", "1", *access]) == 0
        assert "label7" in capsys.readouterr().out
        load = ["--queries", str(queries), "--duration", "200ms", "-k", "1"]
        assert main(["bench", *target, *load, *access]) == 0
        assert "OK" in capsys.readouterr().out
        assert main(["query", *target, "--text", "topic7", "--timeout-s", "2"]) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca": "junk"}, r"tls\.ca: expected certificates in PEM, got .*junk"),
        ({"certificate": "server.pem"}, r"tls\.key: expected a file.* got None"),
        ({"key": "server.key"}, r"tls\.certificate: expected a file.* got None"),
        ({"certificate": "server.pem", "key": "other.key"}, r"tls\.key: expected the private key"),
    ],
)
def test_a_client_names_the_file_that_is_wrong(
    authority: Authority, server_files: Issued, files: dict[str, str], message: str
) -> None:
    folder = server_files.key.parent
    authority.issue("other")
    (folder / "junk").write_text("junk", encoding="utf-8")
    tls = Tls(**{name: folder / file for name, file in files.items()})
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match=message):
            kind(f"{HOST}:1", tls=tls)


def test_a_client_whose_file_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client(f"{HOST}:1", tls=Tls(ca=tmp_path / "missing"))
