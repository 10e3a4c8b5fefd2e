"""What a caller asks of a scoring run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from motherlode.core.errors import ConfigError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRequest:
    """One file to be scored by one model.

    Attributes:
        repository: Folder of the published bundles.
        model: Name of the model.
        version: Version number or alias; None is the newest version when the run starts.
        input: The queries, in any format that `read_records` reads.
        output: Folder of the parts; made if it is missing, and used by one run only.
        k: Hits wanted per row.
        rows_per_part: Rows of each output file but the last.
        restart: Drop what an earlier run left in the output folder.
        batch_size: Queries read and searched together; it never changes an answer.

    Raises:
        ConfigError: If a number is below 1.
    """

    repository: Path
    model: str
    version: int | str | None = None
    input: Path
    output: Path
    k: int
    rows_per_part: int
    restart: bool = False
    batch_size: int = 1000

    def __post_init__(self) -> None:
        for field in ("k", "rows_per_part", "batch_size"):
            if getattr(self, field) < 1:
                raise ConfigError(field, expected="at least 1", actual=getattr(self, field))

    @property
    def requested_version(self) -> str | None:
        """The version as the caller wrote it."""
        return None if self.version is None else str(self.version)
