"""Rows per second of offline scoring, beside what reading and the retriever alone would reach.

Usage: python benchmarks/scoring.py REPOSITORY MODEL[@VERSION] INPUT [K ...]

Each figure is the best of three runs: other work on the machine can only make one slower. Loading
the bundle is left out of all of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import print_result

from motherlode.core.records import read_records
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.scoring import RowsDone, ScoringRequest, score_file

BATCH_SIZE = 1000
REPEATS = 3
COLUMNS = ["k", "rows", "labels", "read rows/s", "retriever rows/s", "score rows/s", "MB written"]


def main() -> None:
    """Score the file for each k and print the speeds."""
    repository, reference, source = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    model, version = parse_model_ref(reference)
    retriever = Retriever.load(Repository(repository), model, version)
    rows = [measure(retriever, repository, source, int(k)) for k in sys.argv[4:] or ["10", "100"]]
    print_result("scoring", COLUMNS, rows)


def measure(retriever: Retriever, repository: Path, source: Path, k: int) -> list[object]:
    """One row of the table."""
    features = retriever.num_features
    batches = list(read_records(source, batch_size=BATCH_SIZE, num_features=features))
    num_rows = sum(map(len, batches))
    seconds = [
        best(lambda: seconds_of(lambda: count(source, features))),
        best(lambda: seconds_of(lambda: [retriever.top_k(b.queries, k) for b in batches])),
    ]
    scored = [score(retriever, repository, source, k) for _ in range(REPEATS)]
    seconds.append(min(scored)[0])
    speeds = [round(num_rows / s) for s in seconds]
    return [k, num_rows, len(retriever.labels), *speeds, round(min(scored)[1] / 1e6, 1)]


def score(retriever: Retriever, repository: Path, source: Path, k: int) -> tuple[float, int]:
    """Seconds from the first row on, and bytes written."""
    times: list[float] = []

    def on_rows(_: RowsDone) -> None:
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        request = ScoringRequest(
            repository=repository,
            model=retriever.model,
            version=retriever.version,
            input=source,
            output=Path(output),
            k=k,
            rows_per_part=100_000,
            batch_size=BATCH_SIZE,
        )
        summary = score_file(request, on_rows=on_rows)
        ended = time.perf_counter()
    return ended - times[0], sum(part.size_bytes for part in summary.success.parts)


def count(source: Path, num_features: int) -> int:
    """Rows of a file, read as scoring reads them."""
    return sum(map(len, read_records(source, batch_size=BATCH_SIZE, num_features=num_features)))


def best(call: Callable[[], float]) -> float:
    """The smallest of several results."""
    return min(call() for _ in range(REPEATS))


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
