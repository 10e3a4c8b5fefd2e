"""Models and their versions in a folder: publish, find, name, retire.

REPOSITORY/MODEL/000007/         one version: a bundle that never changes
REPOSITORY/MODEL/aliases.json    optional: {"stable": 7}

Any number of readers and publishers may use one repository at once, also from several processes.
Whatever a dying process leaves is hidden or an empty folder, and the next publisher of that model
removes it.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

from motherlode.core.aliases import (
    check_alias_name,
    is_alias_name,
    read_aliases,
    write_aliases,
)
from motherlode.core.errors import (
    BundleError,
    ConfigError,
    NotFoundError,
    UnsupportedFormatError,
)
from motherlode.core.manifest import Manifest, read_manifest
from motherlode.core.publishing import remove_traces, write_checked
from motherlode.core.staging import (
    hide_folder,
    locked,
    staging_folder,
    sync,
)

if TYPE_CHECKING:
    from motherlode.core.draft import BundleDraft

logger = logging.getLogger(__name__)

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_VERSION_FOLDER = re.compile(r"[0-9]{6,18}", re.ASCII)


@final
class Repository:
    """All models under one folder; the folder need not exist before the first publish."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def models(self) -> list[str]:
        """Names of the models that have a version, or a folder that cannot be read; sorted."""
        if not self.path.is_dir():
            return []
        names = [entry.name for entry in self.path.iterdir() if _MODEL_NAME.fullmatch(entry.name)]
        return sorted(filter(self._is_model, names))

    def versions(self, model: str) -> list[int]:
        """Versions with a valid manifest, oldest first; empty for an unknown model.

        A version that a newer Motherlode wrote is among them: to load it fails with the reason.

        Raises:
            BundleError: If the model's folder cannot be read.
        """
        return [version for version in self._folders(model) if self._is_valid(model, version)]

    def path_of(self, model: str, version: int) -> Path:
        """The folder of a version, whether it exists or not."""
        return self.path / model / f"{version:06d}"

    def manifest(self, model: str, version: int) -> Manifest:
        """The manifest of a version.

        Raises:
            BundleError: If it is missing or not valid.
        """
        return read_manifest(self.path_of(model, version))

    def resolve(self, model: str, reference: int | str | None = None) -> int:
        """The version that a reference means.

        Args:
            model: Name of the model.
            reference: A version as number or digits, an alias, or None for the newest version.

        Raises:
            NotFoundError: If there is no such model, version or alias; says what there is.
            BundleError: If the model's folder cannot be read.
        """
        newest = self._newest(model)
        if newest is None:
            self._check_exists()
            raise NotFoundError("model", model, known=self.models())
        if reference is None:
            return newest
        if isinstance(reference, str) and not (reference.isascii() and reference.isdecimal()):
            return self._resolve_alias(model, reference)
        version = int(reference)
        if not self._is_valid(model, version):
            raise NotFoundError("version", f"{model}@{version}", known=self._known_versions(model))
        return version

    def aliases(self, model: str) -> dict[str, int]:
        """Versions by alias; empty where the model has none.

        Raises:
            BundleError: If `aliases.json` is not valid.
        """
        return read_aliases(self.path / model) if _MODEL_NAME.fullmatch(model) else {}

    def set_alias(self, model: str, alias: str, reference: int | str | None = None) -> int:
        """Makes an alias mean a version, whatever it meant before; gives the version.

        Raises:
            ConfigError: If the alias is not a name for one.
            NotFoundError: If there is no such model or version.
            BundleError: If the file of aliases cannot be read or written.
        """
        check_alias_name(alias)
        version = self.resolve(model, reference)
        with self._lock(model):
            # Resolved again: a retention run may just have removed it.
            self.resolve(model, version)
            write_aliases(self.path / model, self.aliases(model) | {alias: version})
        return version

    def remove_alias(self, model: str, alias: str) -> None:
        """Removes an alias, whether or not the version that it means is still there.

        Raises:
            NotFoundError: If there is no such alias.
            BundleError: If the file of aliases cannot be read or written.
        """
        self._check_alias(model, alias)
        with self._lock(model):
            kept = {name: v for name, v in self.aliases(model).items() if name != alias}
            write_aliases(self.path / model, kept)

    def restore_aliases(
        self, model: str, before: Mapping[str, int], written: Mapping[str, int]
    ) -> dict[str, int]:
        """Takes back what was written; gives the aliases that there are then.

        An earlier version is not checked: it may be gone, and the alias still says what was wanted.

        Args:
            model: Name of the model.
            before: Its aliases before.
            written: What was written since then. An alias that says something else by now was moved
                by somebody else, and stays.

        Raises:
            BundleError: If the file of aliases cannot be read or written.
        """
        with self._lock(model):
            aliases = self.aliases(model)
            for alias in [name for name, v in written.items() if aliases.get(name) == v]:
                del aliases[alias]
                if alias in before:
                    aliases[alias] = before[alias]
            write_aliases(self.path / model, aliases)
        return aliases

    def check_publish(self, model: str, *, keep: int | None = None) -> None:
        """Finds out, before the work on a draft begins, what would stop `publish` at its end.

        Makes the repository's folder if it is missing.

        Raises:
            ConfigError: If the model's name or `keep` is wrong.
            BundleError: If nothing can be written there, or `keep` is given and the aliases cannot
                be read.
        """
        check_model_name(model)
        if keep is not None and keep < 1:
            raise ConfigError("keep", expected="at least 1", actual=keep)
        folder = self.path / model
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder if folder.exists() else self.path):
                pass
            if folder.exists():
                with self._lock(model):
                    pass
        except OSError as error:
            raise BundleError(folder, f"cannot publish: {error.strerror or error}") from error
        if keep is not None:
            self.aliases(model)

    def publish(self, model: str, draft: BundleDraft, *, keep: int | None = None) -> int:
        """Writes a draft as a new version and gives its number.

        The version becomes visible at once and whole, or not at all. Older versions that cannot be
        removed then are a warning, no error.

        Args:
            model: Name of the model, made if new.
            draft: What to publish.
            keep: Versions to keep, this one included; older ones are removed unless an alias names
                them. None keeps all.

        Raises:
            ConfigError: If the model's name or `keep` is wrong.
            BundleError: If it cannot be written, or `check_publish` finds why not; nothing of it
                remains.
        """
        self.check_publish(model, keep=keep)
        folder = self.path / model
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sync(self.path)
            with staging_folder(folder) as staging:
                write_checked(draft, staging, folder)
                with self._lock(model):
                    claims = [self.path_of(model, version) for version in self._folders(model)]
                    remove_traces(folder, claims)
                    version = self._appear(model, staging)
        except OSError as error:
            raise BundleError(folder, f"cannot publish: {error.strerror or error}") from error
        logger.info("published %s@%d", model, version)
        if keep is not None:
            self._retire_after_publish(model, keep)
        return version

    def retire(self, model: str, *, keep: int) -> list[int]:
        """Removes the oldest versions beyond `keep`, but none that an alias names; gives them.

        A process that has a removed version loaded can go on using it.

        Raises:
            BundleError: If the aliases cannot be read, or a version cannot be removed.
        """
        with self._lock(model):
            named = set(self.aliases(model).values())
            retired = [v for v in self.versions(model)[:-keep] if v not in named]
            hidden = [self._hide(model, version) for version in retired]
        # A large folder takes its time, and others wait for the lock.
        for folder in hidden:
            shutil.rmtree(folder, ignore_errors=True)
        return retired

    def _retire_after_publish(self, model: str, keep: int) -> None:
        try:
            self.retire(model, keep=keep)
        except BundleError as error:
            logger.warning("older versions of %s stay: %s", model, error)

    def _appear(self, model: str, staging: Path) -> int:
        """Renames a staging folder to the next version, under the lock.

        Making the empty folder claims a number, since only one can, whether or not all heed the
        lock; a rename onto one's own empty folder then replaces it in one step. Until then readers
        ignore the folder.
        """
        version = max(self._folders(model), default=0) + 1
        while True:
            target = self.path_of(model, version)
            try:
                target.mkdir()
            except FileExistsError:
                version += 1
                continue
            try:
                staging.rename(target)
            except OSError:
                with suppress(OSError):
                    target.rmdir()
                raise
            sync(target.parent)
            return version

    def _hide(self, model: str, version: int) -> Path:
        path = self.path_of(model, version)
        try:
            hidden = hide_folder(path)
        except OSError as error:
            raise BundleError(path, f"cannot be removed: {error.strerror or error}") from error
        logger.info("removed %s@%d", model, version)
        return hidden

    def _resolve_alias(self, model: str, alias: str) -> int:
        version = self._check_alias(model, alias)
        if not self._is_valid(model, version):
            name = f"{model}@{version}, which the alias {alias} names"
            raise NotFoundError("version", name, known=self._known_versions(model))
        return version

    def _check_alias(self, model: str, alias: str) -> int:
        """The version that an alias means, whether it is there or not."""
        aliases = self.aliases(model)
        if alias not in aliases:
            known = [*sorted(aliases), *self._known_versions(model)]
            raise NotFoundError("alias", f"{model}@{alias}", known=known)
        return aliases[alias]

    def _folders(self, model: str) -> list[int]:
        """Numbers of all folders that look like a version, valid or not, ascending."""
        folder = self.path / model
        # A model's name may come from a stranger and must not lead out of the repository.
        if not _MODEL_NAME.fullmatch(model) or not folder.is_dir():
            return []
        try:
            found = [entry.name for entry in folder.iterdir()]
        except OSError as error:
            raise BundleError(folder, f"cannot be read: {error.strerror or error}") from error
        names = filter(_VERSION_FOLDER.fullmatch, found)
        return sorted(int(name) for name in names if int(name) > 0 and f"{int(name):06d}" == name)

    def _newest(self, model: str) -> int | None:
        newest_first = reversed(self._folders(model))
        return next((version for version in newest_first if self._is_valid(model, version)), None)

    def _is_model(self, name: str) -> bool:
        try:
            return self._newest(name) is not None
        except BundleError:
            return True

    def _is_valid(self, model: str, version: int) -> bool:
        try:
            self.manifest(model, version)
        except UnsupportedFormatError:
            return True
        except BundleError:
            return False
        return True

    def _known_versions(self, model: str) -> list[str]:
        return [str(version) for version in self.versions(model)]

    def _check_exists(self) -> None:
        if not self.path.is_dir():
            raise NotFoundError("repository", str(self.path))

    @contextmanager
    def _lock(self, model: str) -> Iterator[None]:
        with locked(self.path / model / ".lock"):
            yield


def check_model_name(name: str) -> None:
    """Refuses what cannot be the name of a model.

    Raises:
        ConfigError: If it is empty, longer than 100 characters, or has other characters than
            letters, digits, `.`, `_` and `-`, or starts with one of the last three.
    """
    if not _MODEL_NAME.fullmatch(name):
        expected = "a letter or digit, then up to 99 letters, digits, '.', '_' or '-'"
        raise ConfigError("model", expected=expected, actual=name)


def parse_model_ref(text: str) -> tuple[str, str | None]:
    """Model and reference of `MODEL`, `MODEL@VERSION` or `MODEL@ALIAS`, for `Repository.resolve`.

    Raises:
        ConfigError: If the text is none of these.
    """
    model, at, reference = text.partition("@")
    check_model_name(model)
    is_reference = is_alias_name(reference) or re.fullmatch(r"[0-9]{1,18}", reference)
    if at and not is_reference:
        raise ConfigError("model", expected="MODEL, MODEL@VERSION or MODEL@ALIAS", actual=text)
    return model, reference or None
