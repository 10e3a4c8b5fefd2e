"""The two steps around a version's appearance: it is checked first, and what died is removed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from motherlode.core.aliases import ALIASES_FILE
from motherlode.core.errors import BundleError
from motherlode.core.staging import remove_replacements

if TYPE_CHECKING:
    from motherlode.core.draft import BundleDraft


def remove_traces(folder: Path, claims: Iterable[Path]) -> None:
    """Removes what processes that died have left of steps that are done under a model's lock.

    Whoever calls holds that lock.

    Args:
        folder: The model's.
        claims: Folders of versions; the empty ones were claimed by publishers that died.
    """
    for claim in claims:
        # What has anything in it stays.
        with suppress(OSError):
            claim.rmdir()
    remove_replacements(folder / ALIASES_FILE)


def write_checked(draft: BundleDraft, staging: Path, folder: Path) -> None:
    """Writes a bundle and asks it its golden queries before anyone can see it.

    Args:
        draft: What to write.
        staging: The hidden folder to write into.
        folder: The model's, which errors name.

    Raises:
        BundleError: If it cannot be written, or does not give its golden answers.
    """
    # Imported here: to look into a repository takes neither PyTorch nor FAISS, seconds to import.
    from motherlode.core.bundle import read_bundle, write_bundle  # noqa: PLC0415
    from motherlode.core.retriever import Retriever  # noqa: PLC0415

    try:
        write_bundle(draft, staging)
        # A full disk or a part that does not fit the others shows here at the latest.
        Retriever(read_bundle(staging, verify=False), model=folder.name, version=0).check_golden()
    except BundleError as error:
        place = error.path.relative_to(staging)
        raise BundleError(folder, f"cannot publish: {place}: {error.reason}") from error
