"""Looks at the repository: what is there, whether or not it is any good."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from motherlode.core.errors import BundleError, ConfigError
from motherlode.core.manifest import MANIFEST_FILE
from motherlode.core.repository import Repository, check_model_name

# A longer number is no version: it would not fit the wire.
_MOST_DIGITS = 18

Fingerprint = tuple[tuple[str, int, int], ...]


@final
@dataclass(frozen=True, slots=True)
class Sighting:
    """One model as it was seen.

    Attributes:
        versions: All with a manifest, newest first. `Repository.versions` leaves out what has a bad
            manifest; here it is kept, so that an operator learns why it does not serve.
        aliases: Versions by alias; None where they cannot be read.
        error: Why the aliases, or the whole folder, cannot be read; or empty.
    """

    versions: tuple[int, ...]
    aliases: Mapping[str, int] | None
    error: str = ""


def model_names(repository: Repository, wanted: Collection[str]) -> list[str]:
    """The models of a repository, sorted: the wanted ones, or all if none is named.

    Raises:
        OSError: If the repository itself cannot be read; that says nothing about its models.
    """
    with os.scandir(repository.path) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and _is_model_name(entry.name)]
    return sorted(name for name in names if not wanted or name in wanted)


def look_at(repository: Repository, model: str) -> Sighting | None:
    """One model as it is now; None if the repository does not have it.

    Raises:
        OSError: If the repository itself cannot be read; that says nothing about its models.
    """
    if _is_model_name(model) and (repository.path / model).is_dir():
        return _sighting(repository, model)
    # A repository that is gone has none either, and is another matter.
    os.scandir(repository.path).close()
    return None


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of all files below a folder: it changes when one of them does."""
    found = []
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            # A file may vanish while a copy is under way.
            with suppress(OSError):
                facts = path.stat()
                found.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(sorted(found))


def _sighting(repository: Repository, model: str) -> Sighting:
    try:
        with os.scandir(repository.path / model) as entries:
            numbers = [int(entry.name) for entry in entries if _is_number(entry.name)]
    except OSError as error:
        return Sighting((), None, f"{repository.path / model}: {error.strerror or error}")
    folders = {number: repository.path_of(model, number) for number in numbers if number > 0}
    versions = [number for number, path in folders.items() if _may_be_there(path / MANIFEST_FILE)]
    versions.sort(reverse=True)
    try:
        return Sighting(tuple(versions), repository.aliases(model))
    except BundleError as error:
        return Sighting(tuple(versions), None, str(error))


def _may_be_there(path: Path) -> bool:
    """Whether a file is there, or nobody can tell: a load then says why."""
    try:
        return path.exists()
    except OSError:
        return True


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS


def _is_model_name(name: str) -> bool:
    try:
        check_model_name(name)
    except ConfigError:
        return False
    return True
