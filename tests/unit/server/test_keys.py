from __future__ import annotations

import re
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from motherlode.core.errors import ConfigError
from motherlode.server import keys as keys_module
from motherlode.server.keys import Key, KeyRing, entry_of, new_key, read_keys
from motherlode.server.roles import Role

HASH = "ab" * 32


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text, encoding="utf-8")
    return path


def entry(**fields: str) -> str:
    lines = {"name": '"one"', "sha256": f'"{HASH}"', "roles": '["read"]'} | fields
    return "[[keys]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value)


def test_a_key_is_found_by_its_entry_and_no_other_is(tmp_path: Path) -> None:
    first, second, stranger = new_key(), new_key(), new_key()
    entries = [entry_of(first, "one", Role.READ), entry_of(second, "two", Role.ADMIN)]
    ring = read_keys(write(tmp_path, "\n\n".join(entries)))
    for _ in range(2):
        assert [getattr(ring.find(token), "name", None) for token in (first, second)] == [
            "one",
            "two",
        ]
        assert ring.find(stranger) is None
        assert ring.find("") is None
        assert ring.find(first[:-1]) is None
        assert ring.find("x" * 100_000) is None


def test_an_entry_does_not_hold_the_key_and_no_two_keys_are_alike() -> None:
    tokens = {new_key() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"mlk_[A-Za-z0-9_-]{43}", token) for token in tokens)
    token = tokens.pop()
    assert token.removeprefix("mlk_") not in entry_of(token, "one", Role.READ)


def test_a_key_that_was_found_is_not_searched_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    token = new_key()
    sha256 = bytes.fromhex(tomllib.loads(entry_of(token, "one", Role.READ))["keys"][0]["sha256"])
    ring = KeyRing((Key("one", sha256, frozenset({Role.READ})),))
    found = ring.find(token)
    monkeypatch.setattr(keys_module.hmac, "compare_digest", None)
    assert found is not None
    assert ring.find(token) is found


def test_an_admin_may_read_and_a_reader_may_not_more() -> None:
    reader = Key("r", b"", frozenset({Role.READ}))
    admin = Key("a", b"", frozenset({Role.ADMIN}))
    assert [reader.allows(role) for role in Role] == [True, False]
    assert [admin.allows(role) for role in Role] == [True, True]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_key_expires_at_the_moment_that_its_entry_names(
    tmp_path: Path, text: str, moment: datetime
) -> None:
    ring = read_keys(write(tmp_path, entry(sha256=f'"{HASH}"', expires=text)))
    key = ring._keys[0]
    assert not key.is_expired(moment.timestamp() - 1)
    assert key.is_expired(moment.timestamp())


def test_the_expiry_that_an_entry_is_made_with_is_read_again(tmp_path: Path) -> None:
    day = date(2027, 1, 31)
    ring = read_keys(write(tmp_path, entry_of(new_key(), "one", Role.READ, day)))
    assert ring._keys[0].expires_s == datetime(2027, 1, 31, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"keys\.toml: expected \[\[keys\]\] and nothing else, got 'an empty file'"),
        ("keys = 3", r"expected \[\[keys\]\]"),
        ("keys = [3]", r"keys\[0\]: expected a table, got 3"),
        ("a = 1\n" + entry(), "nothing else"),
        ("= 1", "expected TOML in UTF-8"),
        ("x = " + "[" * 100_000, "expected TOML in UTF-8"),
        (entry(name=""), r"keys\[0\]\.name: expected letters, .* got None"),
        (entry(name='"a b"'), r"keys\[0\]\.name: .* got 'a b'"),
        (entry(sha256='"mlk_secret"'), r"keys\[0\]\.sha256: expected 64 hexadecimal digits"),
        (entry(roles="[]"), r"keys\[0\]\.roles: expected a list of read or admin, got \[\]"),
        (entry(roles='["write"]'), r"keys\[0\]\.roles: .* got \['write'\]"),
        (entry(roles='"read"'), r"keys\[0\]\.roles"),
        (entry(roles="[[1]]"), r"keys\[0\]\.roles"),
        (entry(expires='"soon"'), r"keys\[0\]\.expires: expected a date.* got 'soon'"),
        (entry(expires="2027-01-31T00:00:00"), r"offset from UTC"),
        (entry(key='"x"'), r"keys\[0\]\.key: expected expires, name, roles, sha256, got 'key'"),
        (entry() + entry(name='"two"'), "another sha256 for each key"),
        (entry() + entry(sha256=f'"{"cd" * 32}"'), "another name for each key"),
    ],
)
def test_a_wrong_keys_file_names_the_key_and_the_field(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_keys(write(tmp_path, text))
    # Whoever puts a key where its hash belongs does not find it in the log.
    assert "mlk_secret" not in str(caught.value)


def test_a_missing_or_endless_keys_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys_file: expected a readable file, got .*missing"):
        read_keys(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"keys_file: expected at most .* bytes"):
        read_keys(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["", "-x", "a b", "é", 'a"', "x" * 101])
def test_a_name_that_would_not_stand_in_the_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name: expected a letter or digit"):
        entry_of(new_key(), name, Role.READ)
