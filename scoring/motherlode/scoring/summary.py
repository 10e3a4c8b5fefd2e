"""What a scoring run says while it goes and when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from motherlode.scoring.records import RunRecord, SuccessRecord


@final
@dataclass(frozen=True, slots=True)
class RowsDone:
    """How far a run is.

    Attributes:
        num_rows: Rows scored, those of earlier runs with them.
        num_before: Rows that earlier runs had scored.
        num_total: Rows of the input as counted beforehand; None where that is not known.
    """

    num_rows: int
    num_before: int
    num_total: int | None


@final
@dataclass(frozen=True, slots=True)
class ScoringSummary:
    """What lies in the output folder after a run.

    Attributes:
        output: The folder.
        run: Settings of the run.
        success: Parts and counts, over all runs that wrote them.
        num_before: Rows that earlier runs had scored.
        num_labels: Labels of the model; None where nothing was left to do and it was not loaded.
        elapsed_s: Time this run took; 0 where nothing was left to do.
    """

    output: Path
    run: RunRecord
    success: SuccessRecord
    num_before: int
    num_labels: int | None = None
    elapsed_s: float = 0.0

    @property
    def is_nothing_done(self) -> bool:
        """Whether an earlier run had finished, so that this one left all as it was."""
        return self.num_labels is None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on rows with fewer hits than asked for, each said once for all rows."""
        notes = []
        num_without = self.success.num_without_hits
        num_short = self.success.num_fewer_than_k - num_without
        if num_without:
            notes.append(f"{num_without} rows have no hits: they hold no feature the model knows")
        if self.num_labels is not None and self.run.k > self.num_labels:
            notes.append(f"k is {self.run.k}, but the model has {self.num_labels} labels in all")
        elif num_short:
            notes.append(f"{num_short} rows have fewer than {self.run.k} hits")
        return tuple(notes)

    @property
    def rows_per_s(self) -> float:
        """Rows that this run scored in a second; 0 where it scored none."""
        num_rows = self.success.num_rows - self.num_before
        return num_rows / self.elapsed_s if num_rows and self.elapsed_s > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON values."""
        success = self.success.model_dump(mode="json", exclude={"format_version", "run", "parts"})
        return {
            "output": str(self.output),
            "nothing_done": self.is_nothing_done,
            **self.run.model_dump(mode="json", exclude={"format_version"}),
            **success,
            "num_parts": len(self.success.parts),
            "num_rows_before": self.num_before,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "notes": list(self.notes),
        }
