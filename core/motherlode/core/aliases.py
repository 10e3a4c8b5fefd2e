"""The file of a model's aliases: names that people give to versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

from motherlode.core.documents import read_json
from motherlode.core.errors import BundleError, ConfigError, shorten
from motherlode.core.staging import replace_file

ALIASES_FILE = "aliases.json"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}", re.ASCII)


def is_alias_name(name: str) -> bool:
    """Whether the name is a lower-case letter and up to 99 letters, digits, `-` or `_`."""
    return _NAME.fullmatch(name) is not None


def check_alias_name(name: str) -> None:
    """Refuses what cannot be an alias.

    Raises:
        ConfigError: If `is_alias_name` says no.
    """
    if not is_alias_name(name):
        expected = "a lower-case letter, then up to 99 lower-case letters, digits, '-' or '_'"
        raise ConfigError("alias", expected=expected, actual=name)


def read_aliases(folder: Path) -> dict[str, int]:
    """Versions by alias in a model's folder; empty where there is no file.

    Raises:
        BundleError: If the file is not valid.
    """
    path = folder / ALIASES_FILE
    try:
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(path, f"cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(path, f"expected a JSON object, got {shorten(document)}")
    for alias, version in document.items():
        if not is_alias_name(alias) or not _is_version(version):
            entry = shorten(f"{alias}: {version}")
            raise BundleError(path, f"expected an alias and a version, got {entry}")
    return document


def _is_version(value: object) -> bool:
    # The name of a version's folder has at most 18 digits.
    return type(value) is int and 1 <= value < 10**18


def write_aliases(folder: Path, aliases: dict[str, int]) -> None:
    """Replaces the file; a reader finds the old one or the new one.

    Raises:
        BundleError: If it cannot be written; the old one is then as it was.
    """
    path = folder / ALIASES_FILE
    try:
        replace_file(path, json.dumps(aliases, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise BundleError(path, f"cannot be written: {error.strerror or error}") from error
