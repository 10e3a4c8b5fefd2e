from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from motherlode.core.errors import ConfigError
from motherlode.server.certificates import Certificates
from motherlode.server.config import load_config
from tests.support.certificates import Authority, Issued


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Issued:
    return authority.issue(not_after=datetime(2090, 1, 2, 3, 4, 5, tzinfo=UTC))


def certificates(**settings: object) -> Certificates:
    return Certificates(load_config(None, {"repository": "r", **settings}))


def test_a_certificate_says_when_it_runs_out(server: Issued) -> None:
    found = certificates(**server.settings).files.content
    assert found.expires_s == datetime(2090, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert "PRIVATE" not in repr(found)


def test_the_key_of_another_certificate_is_refused(authority: Authority, server: Issued) -> None:
    other = authority.issue("other")
    with pytest.raises(ConfigError, match=r"tls_key: expected the private key of .*server\.pem"):
        certificates(tls_certificate=server.certificate, tls_key=other.key)


@pytest.mark.parametrize(
    ("setting", "content", "message"),
    [
        ("tls_certificate", None, "tls_certificate: expected a readable file, got .*No such file"),
        ("tls_key", None, "tls_key: expected a readable file"),
        ("tls_client_ca", None, "tls_client_ca: expected a readable file"),
        ("tls_certificate", b"junk", "tls_certificate: expected certificates in PEM"),
        ("tls_certificate", b"", "tls_certificate: expected certificates in PEM"),
        ("tls_key", b"junk", "tls_key: expected a private key in PEM, without a password"),
        ("tls_key", b"", "tls_key: expected a private key in PEM"),
        ("tls_client_ca", b"junk", "tls_client_ca: expected certificates in PEM"),
        ("tls_client_ca", b"", "tls_client_ca: expected certificates in PEM"),
    ],
)
def test_a_file_that_is_missing_or_broken_is_named(
    tmp_path: Path, server: Issued, setting: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        certificates(**(server.settings | {setting: path}))


def test_roots_are_loaded_from_a_bundle_that_names_them_in_any_language(
    authority: Authority, server: Issued, tmp_path: Path
) -> None:
    bundle, other = tmp_path / "bundle.pem", Authority(tmp_path / "other")
    first, second = authority.root.read_bytes(), other.root.read_bytes()
    bundle.write_bytes("# Főtanúsítvány\n".encode() + first + b"# another\n" + second)
    found = certificates(**server.settings, tls_client_ca=bundle).files.content.context
    assert found.cert_store_stats()["x509_ca"] == 2
    assert found.verify_mode is ssl.CERT_REQUIRED


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(server: Issued) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(server.key.read_bytes(), None)
    locked = form.BestAvailableEncryption(b"secret")
    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    server.key.write_bytes(key.private_bytes(pem, pkcs8, locked))
    with pytest.raises(ConfigError, match=r"tls_key: .* without a password"):
        certificates(**server.settings)


def test_a_certificate_that_has_run_out_is_refused(authority: Authority) -> None:
    issued = authority.issue(not_after=datetime(2001, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigError, match=r"tls_certificate: .* certificate has expired"):
        certificates(**issued.settings)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("tls_certificate", "tls_certificate: expected a file: .* belong together, got None"),
        ("tls_key", "tls_key: expected a file: .* belong together, got None"),
    ],
)
def test_certificate_and_key_belong_together(server: Issued, left_out: str, message: str) -> None:
    settings = {name: path for name, path in server.settings.items() if name != left_out}
    with pytest.raises(ConfigError, match=message):
        certificates(**settings)


def test_a_key_that_everyone_may_read_is_warned_of(
    server: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    certificates(**server.settings)
    assert not caplog.records
    server.key.chmod(0o644)
    certificates(**server.settings)
    assert "tls_key: everyone on this machine may read" in caplog.text


def test_a_broken_renewal_leaves_the_old_one_is_told_once_and_can_be_mended(
    authority: Authority, server: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificates(**server.settings).files
    old, sound = files.content, server.key.read_bytes()
    server.key.write_bytes(b"junk")
    for _ in range(3):
        files.look()
    assert files.content is old
    assert files.is_stale
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "the certificate stays as it was: tls_key: expected" in record.getMessage()
    server.key.write_bytes(sound)
    files.look()
    assert not files.is_stale
    authority.issue()
    files.look()
    assert files.content is not old


def test_files_that_change_while_they_are_read_are_read_again(server: Issued) -> None:
    files = certificates(**server.settings).files
    read, num_reads = files._read, 0

    def read_and_disturb() -> object:
        nonlocal num_reads
        content = read()
        num_reads += 1
        if num_reads == 1:
            server.key.write_bytes(server.key.read_bytes() + b"\n")
        return content

    files._read = read_and_disturb  # type: ignore[assignment,method-assign]
    server.certificate.touch()
    files.look()
    assert num_reads == 2
    assert not files.is_stale


def test_a_file_that_never_rests_is_refused(server: Issued) -> None:
    files = certificates(**server.settings).files
    read = files._read

    def read_and_disturb() -> object:
        content = read()
        server.key.write_bytes(server.key.read_bytes() + b"\n")
        return content

    files._read = read_and_disturb  # type: ignore[assignment,method-assign]
    server.certificate.touch()
    files.look()
    assert files.is_stale
    assert "expected files at rest" in files._fault
