"""Inputs for scoring runs on the tiny bundle, and what such runs wrote."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motherlode.scoring import RowsDone, ScoringRequest, score_file
from motherlode.scoring.records import InputRecord, RunRecord


def texts(num_rows: int, num_labels: int = 50) -> list[str]:
    """Queries for the tiny bundle: row i asks for label i (modulo the labels)."""
    return [f"topic{row % num_labels} filler" for row in range(num_rows)]


def write_jsonl(path: Path, queries: Iterable[str], *, filler: str = "") -> Path:
    """A JSONL file, compressed if its name says so; rows have ids `q0`, `q1` and so on."""
    lines = (
        json.dumps({"id": f"q{row}", "text": text + filler}) + "\n"
        for row, text in enumerate(queries)
    )
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(lines)
    else:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    return path


def write_parquet(path: Path, queries: list[str]) -> Path:
    """The same rows as `write_jsonl` writes, as Parquet."""
    pq.write_table(
        pa.table({"id": [f"q{row}" for row in range(len(queries))], "text": queries}), path
    )
    return path


def request(repository: Path, source: Path, output: Path, **settings: Any) -> ScoringRequest:
    """A request for the tiny model."""
    return ScoringRequest(
        **{
            "repository": repository,
            "model": "tiny",
            "input": source,
            "output": output,
            "k": 3,
            "rows_per_part": 20,
            **settings,
        }
    )


def run_record(**settings: Any) -> RunRecord:
    """Settings of a run of some model over some file."""
    values = {
        "input": InputRecord(name="queries.jsonl", size_bytes=10, sha256="5e"),
        "model": "tiny",
        "requested_version": None,
        "version": 1,
        "bundle_digest": "d1",
        "k": 3,
        "rows_per_part": 20,
    }
    return RunRecord.model_validate(values | settings)


def part_paths(folder: Path) -> list[Path]:
    """The visible parts, in order."""
    return sorted(folder.glob("part-*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of all parts, in order."""
    return [row for path in part_paths(folder) for row in pq.read_table(path).to_pylist()]


def stop_at(num_rows: int) -> Callable[[RowsDone], None]:
    """Interrupts a run once so many rows are done."""

    def on_rows(done: RowsDone) -> None:
        if done.num_rows >= num_rows:
            raise KeyboardInterrupt

    return on_rows


def interrupt(repository: Path, source: Path, output: Path, *, at: int) -> None:
    """A run that stops after so many rows."""
    with pytest.raises(KeyboardInterrupt):
        score_file(request(repository, source, output, batch_size=4), on_rows=stop_at(at))
