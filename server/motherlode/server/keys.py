"""Keys of callers: made, kept as hashes, and found again.

A key is 32 random bytes. Nobody can guess one, so a fast hash hides it as well as a slow one would;
slow hashes are for passwords, which people choose, and would let strangers keep the server busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, final

from motherlode.core.errors import ConfigError
from motherlode.server.roles import Role
from motherlode.server.watched_files import read_file

# Scanners of source code know leaked keys by how they start.
KEY_PREFIX = "mlk_"
_KEY_BYTES = 32
_LONGEST_TOKEN = 512

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "roles", "expires"}


@final
@dataclass(frozen=True, slots=True)
class Key:
    """One caller's key, as the keys file has it.

    Attributes:
        name: Whose it is, for the log.
        sha256: Hash of the key.
        roles: What it is good for.
        expires_s: Unix time from which on it is refused; None for never.
    """

    name: str
    sha256: bytes
    roles: frozenset[Role]
    expires_s: float | None = None

    def allows(self, role: Role) -> bool:
        """Whether the key is good for a role."""
        return role in self.roles or Role.ADMIN in self.roles

    def is_expired(self, now_s: float) -> bool:
        """Whether its time is over at a Unix time."""
        return self.expires_s is not None and now_s >= self.expires_s


@final
class KeyRing:
    """The keys that a server knows.

    Args:
        keys: All of them, each with a name and a hash of its own.
    """

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self._found: dict[bytes, Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, token: str) -> Key | None:
        """The key that a caller sent; None if nobody has it."""
        if len(token) > _LONGEST_TOKEN:
            return None
        digest = _hash(token)
        # Only keys that are known get in here, so it is no larger than the file.
        return self._found.get(digest) or self._search(digest)

    def _search(self, digest: bytes) -> Key | None:
        # All are compared, each to its end: the time says nothing of how near a guess has come.
        matches = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not matches:
            return None
        return self._found.setdefault(digest, matches[0])


def new_key() -> str:
    """A key that nobody had before."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def entry_of(token: str, name: str, role: Role, expires: date | None = None) -> str:
    """What the keys file says of a key, in TOML.

    Raises:
        ConfigError: If the name is none for a key.
    """
    if not _NAME.fullmatch(name):
        expected = "a letter or digit, then up to 99 letters, digits, '.', '_' or '-'"
        raise ConfigError("name", expected=expected, actual=name)
    lines = [
        "[[keys]]",
        f'name = "{name}"',
        f'sha256 = "{_hash(token).hex()}"',
        f'roles = ["{role.value}"]',
        *([] if expires is None else [f"expires = {expires.isoformat()}"]),
    ]
    return "\n".join(lines)


def read_keys(path: Path) -> KeyRing:
    """The keys of a keys file.

    Raises:
        ConfigError: If it cannot be read or is no keys file; names the key and the field.
    """
    try:
        document = tomllib.loads(read_file("keys_file", path).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), expected="TOML in UTF-8", actual=error) from None
    entries = document.get("keys")
    if document.keys() - {"keys"} or not isinstance(entries, list) or not entries:
        actual = ", ".join(document) or "an empty file"
        raise ConfigError(str(path), expected="[[keys]] and nothing else", actual=actual)
    keys = tuple(_read_key(entry, f"{path}: keys[{i}]") for i, entry in enumerate(entries))
    for name in ("name", "sha256"):
        values = [getattr(key, name) for key in keys]
        if len(set(values)) < len(values):
            raise ConfigError(str(path), expected=f"another {name} for each key", actual="the same")
    return KeyRing(keys)


def _read_key(entry: Any, place: str) -> Key:
    if not isinstance(entry, dict):
        raise ConfigError(place, expected="a table", actual=entry)
    for unknown in entry.keys() - _FIELDS:
        raise ConfigError(f"{place}.{unknown}", expected=", ".join(sorted(_FIELDS)), actual=unknown)
    name = _read_text(entry, "name", _NAME, "letters, digits, '.', '_' and '-'", place)
    sha256 = _read_text(entry, "sha256", _SHA256, "64 hexadecimal digits in lower case", place)
    roles = _read_roles(entry.get("roles"), place)
    return Key(name, bytes.fromhex(sha256), roles, _read_expiry(entry.get("expires"), place))


def _read_text(
    entry: dict[str, Any], field: str, form: re.Pattern[str], expected: str, place: str
) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not form.fullmatch(value):
        # Whoever puts a key itself in the place of its hash does not find it in the log.
        actual = "something else" if field == "sha256" else value
        raise ConfigError(f"{place}.{field}", expected=expected, actual=actual)
    return value


def _read_roles(value: Any, place: str) -> frozenset[Role]:
    known = [role.value for role in Role]
    is_list = isinstance(value, list) and value
    if not is_list or any(name not in known for name in value):
        expected = f"a list of {' or '.join(known)}"
        raise ConfigError(f"{place}.roles", expected=expected, actual=value)
    return frozenset(map(Role, value))


def _read_expiry(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC).timestamp()
    expected = "a date, or a date and time with its offset from UTC"
    raise ConfigError(f"{place}.expires", expected=expected, actual=value)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
