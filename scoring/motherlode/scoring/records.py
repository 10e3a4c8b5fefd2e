"""The two JSON files of an output folder: what the run is, and that it is done.

`_run.json` is written before the first part and `_SUCCESS.json` after the last one. Readers of
Parquet folders pass over names that start with an underscore.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, final

from pydantic import BaseModel, ConfigDict

RUN_FILE = "_run.json"
SUCCESS_FILE = "_SUCCESS.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@final
class InputRecord(_Record):
    """The scored file: its name without folders, and its content."""

    name: str
    size_bytes: int
    sha256: str


@final
class RunRecord(_Record):
    """Settings that decide what a run writes.

    Attributes:
        requested_version: Version or alias as the caller wrote it; None is "the newest".
        version: What that was when the run started.
    """

    format_version: Literal[1] = 1
    input: InputRecord
    model: str
    requested_version: str | None
    version: int
    bundle_digest: str
    k: int
    rows_per_part: int

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the content of the parts; every part carries it.

        A file that was only renamed is the same input, and a version is the same under each alias.
        """
        settings = self.model_dump(
            mode="json", exclude={"requested_version": True, "input": {"name"}}
        )
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@final
class PartRecord(_Record):
    """One whole part.

    Attributes:
        num_without_hits: Rows without any hit: no feature of theirs is known to the model.
        num_fewer_than_k: Rows with fewer hits than asked for, those without any with them.
    """

    name: str
    num_rows: int
    num_hits: int
    num_without_hits: int
    num_fewer_than_k: int
    size_bytes: int
    sha256: str


@final
class SuccessRecord(_Record):
    """A finished run: its digest, its parts in the order of the input, and their sums."""

    format_version: Literal[1] = 1
    run: str
    num_rows: int
    num_hits: int
    num_without_hits: int
    num_fewer_than_k: int
    parts: tuple[PartRecord, ...]

    @classmethod
    def of(cls, run: RunRecord, parts: list[PartRecord]) -> SuccessRecord:
        """The record of a run that wrote these parts."""
        return cls(
            run=run.digest,
            num_rows=sum(part.num_rows for part in parts),
            num_hits=sum(part.num_hits for part in parts),
            num_without_hits=sum(part.num_without_hits for part in parts),
            num_fewer_than_k=sum(part.num_fewer_than_k for part in parts),
            parts=tuple(parts),
        )
