from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from motherlode.core.errors import ConfigError
from motherlode.server.config import load_config
from motherlode.server.keys import entry_of, new_key
from motherlode.server.metrics import Meters
from motherlode.server.roles import Role
from motherlode.server.security import Security
from tests.support.waiting import until


def security(**settings: object) -> Security:
    return Security(load_config(None, {"repository": "r", **settings}), Meters())


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(entry_of(new_key(), "one", Role.READ), encoding="utf-8")
    return path


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.9.10:1"])
def test_an_admin_port_of_this_machine_alone_needs_no_guard(address: str) -> None:
    assert security(admin=address).guard is None


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.evil:1"])
def test_any_other_needs_one(address: str, keys_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"admin: .* keys_file or tls_client_ca"):
        security(admin=address)
    assert security(admin=address, keys_file=keys_file).guard is not None
    assert security(admin=address, allow_open_admin="true").guard is None


@pytest.mark.parametrize("name", ["listen", "admin"])
def test_keys_in_clear_text_between_machines_are_warned_of(
    name: str, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    security(keys_file=keys_file)
    assert not caplog.records
    security(keys_file=keys_file, **{name: "0.0.0.0:1"})
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{name}: without tls_certificate, keys travel")


def test_a_server_without_keys_and_certificates_speaks_plain_text() -> None:
    assert security().tls is None


def test_a_certificate_authority_alone_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_certificate: expected a file"):
        security(tls_client_ca=tmp_path / "ca.pem")


@pytest.mark.asyncio
async def test_a_look_that_fails_is_not_the_last(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guarded, num_looks = security(keys_file=keys_file, reload_interval_s=0.001), 0

    async def fail() -> None:
        nonlocal num_looks
        num_looks += 1
        raise ZeroDivisionError

    monkeypatch.setattr(Security, "look", lambda _: fail())
    looking = asyncio.create_task(guarded.run())
    await until(lambda: num_looks > 2)
    looking.cancel()
    assert "looking at certificates and keys failed" in caplog.text
