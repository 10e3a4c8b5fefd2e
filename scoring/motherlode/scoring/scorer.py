"""Scores a file: reads rows in batches, asks the retriever, writes parts, and can be cut off.

The rows of a part are settled by their numbers, so a run that goes on after a crash reads past the
rows of the whole parts and writes the rest as an uninterrupted run would have.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

from motherlode.core.errors import DataError, InvalidQueryError
from motherlode.core.queries import Queries
from motherlode.core.records import RecordBatch, read_records
from motherlode.core.records.messages import at_line
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.scoring.folder import OutputFolder, claim, disk_errors, part_name
from motherlode.scoring.parts import PartFormat, PartWriter
from motherlode.scoring.plan import load_retriever, newer_version, plan_run
from motherlode.scoring.records import PartRecord, RunRecord
from motherlode.scoring.request import ScoringRequest
from motherlode.scoring.source import Source, count_rows, identify
from motherlode.scoring.summary import RowsDone, ScoringSummary

logger = logging.getLogger(__name__)

OnRows = Callable[[RowsDone], None]


def score_file(request: ScoringRequest, *, on_rows: OnRows | None = None) -> ScoringSummary:
    """Writes the top k labels of every row of a file as Parquet parts.

    A folder in which a run with the same settings was cut off gets the missing parts, from the
    version that run began with; a folder whose run is finished stays as it is. The scores are those
    of `Retriever.top_k`, whatever the sizes of batches and parts.

    Args:
        request: What to score, and where to.
        on_rows: Called once before the first row of this run and after each batch.

    Raises:
        DataError: If the input cannot be read, is wrong at some place, or changes on the way; the
            whole parts before that place stay, and without any the folder is free again.
        NotFoundError: If there is no such repository, model or version.
        BundleError: If the bundle cannot be loaded.
        OutputError: If the folder holds a run with other settings or files of somebody else, is in
            use by another run, or cannot be written.
    """
    source = identify(request.input)
    repository = Repository(request.repository)
    with claim(request.output) as folder:
        # Read even when it is to be dropped: files of somebody else are refused, not removed.
        recorded = folder.run()
        previous = None if request.restart else recorded
        run = plan_run(request, source, repository, previous)
        success = folder.success(run) if previous is not None else None
        if success is not None:
            return ScoringSummary(folder.path, run, success, num_before=success.num_rows)
        retriever = load_retriever(request, repository, run, is_begun=previous is not None)
        if previous is None:
            folder.begin(run)
        elif (newer := newer_version(request, repository, run)) is not None:
            logger.warning(
                "the run keeps to version %d, with which it began; now it would take version %d",
                run.version,
                newer,
            )
        try:
            return _Scorer(request, source, run, retriever, folder).score(on_rows or _ignore)
        except DataError:
            # The repaired input is another one: nothing is lost that it could go on with.
            folder.abandon()
            raise


def _ignore(_: RowsDone) -> None:
    pass


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that are scored together, all of one part.

    Attributes:
        part: Number of the part.
        start: Number of the first row in the file, from 0.
        lines: Line of each row in the file, from 1.
        is_last: Whether these rows make the part full.
    """

    part: int
    start: int
    lines: Sequence[int]
    ids: list[str]
    queries: Queries
    is_last: bool


def cut(batches: Iterable[RecordBatch], *, skip: int, rows_per_part: int) -> Iterator[Piece]:
    """The rows after the first `skip`, cut where a batch or a part ends."""
    first = 0
    for batch in batches:
        num_rows = len(batch.ids)
        start = max(0, skip - first)
        while start < num_rows:
            part = (first + start) // rows_per_part
            stop = min(num_rows, (part + 1) * rows_per_part - first)
            yield Piece(
                part=part,
                start=first + start,
                lines=batch.lines[start:stop],
                ids=batch.ids[start:stop],
                queries=batch.queries.rows(start, stop),
                is_last=first + stop == (part + 1) * rows_per_part,
            )
            start = stop
        first += num_rows


@final
class _Scorer:
    """One run over one file, once all settings are known."""

    def __init__(
        self,
        request: ScoringRequest,
        source: Source,
        run: RunRecord,
        retriever: Retriever,
        folder: OutputFolder,
    ) -> None:
        self._request = request
        self._source = source
        self._run = run
        self._retriever = retriever
        self._folder = folder
        self._form = PartFormat(run, retriever.labels)
        # The index has no more hits than labels; the rows then say so by their lengths.
        self._k = min(run.k, len(retriever.labels))

    def score(self, on_rows: OnRows) -> ScoringSummary:
        """Writes the missing parts and the record of success."""
        started = time.monotonic()
        parts = self._folder.resume(self._run)
        num_before = sum(part.num_rows for part in parts)
        num_total = count_rows(self._source.path)
        on_rows(RowsDone(num_before, num_before, num_total))
        # The readers take a file without records for a mistake; here it is an empty answer.
        batches = () if num_total == 0 else self._records()
        pieces = cut(batches, skip=num_before, rows_per_part=self._run.rows_per_part)
        for number, group in groupby(pieces, key=lambda piece: piece.part):
            scored = self._scored(group, lambda n: on_rows(RowsDone(n, num_before, num_total)))
            parts.append(self._write_part(number, scored))
        if not parts:
            parts.append(self._write_part(0, ()))
        return ScoringSummary(
            self._folder.path,
            self._run,
            self._folder.finish(self._run, parts),
            num_before=num_before,
            num_labels=len(self._retriever.labels),
            elapsed_s=time.monotonic() - started,
        )

    def _records(self) -> Iterator[RecordBatch]:
        # Batches no longer than a part, so that a wrong line costs no whole part before it.
        batch_size = min(self._request.batch_size, self._run.rows_per_part)
        num_features = self._retriever.num_features
        return read_records(
            self._source.path,
            batch_size=batch_size,
            num_features=num_features,
            kinds=self._retriever.query_kinds,
        )

    def _scored(
        self, pieces: Iterable[Piece], on_scored: Callable[[int], None]
    ) -> Iterator[tuple[list[str], TopK]]:
        for piece in pieces:
            yield piece.ids, self._top_k(piece)
            on_scored(piece.start + len(piece.ids))
            if piece.is_last:
                return  # before more is read, which may fail: this part is whole all the same

    def _top_k(self, piece: Piece) -> TopK:
        try:
            return self._answer(piece.queries)
        except InvalidQueryError:
            self._refuse_first_wrong(piece)
            raise

    def _answer(self, queries: Queries) -> TopK:
        self._retriever.validate(queries, self._k)
        return self._retriever.top_k(queries, self._k)

    def _refuse_first_wrong(self, piece: Piece) -> None:
        """Asks row by row, to name the line of the first that cannot be answered."""
        for row, line in enumerate(piece.lines):
            try:
                self._answer(piece.queries.rows(row, row + 1))
            except InvalidQueryError as error:
                raise at_line(self._source.path, line, error) from error

    def _write_part(self, number: int, scored: Iterable[tuple[list[str], TopK]]) -> PartRecord:
        path = self._folder.path / part_name(number)
        with self._folder.new_file(path.name) as file:
            with disk_errors(path):
                writer = PartWriter(file, self._form)
            try:
                for ids, top in scored:
                    with disk_errors(path):
                        writer.write(ids, top)
                with disk_errors(path):
                    writer.close()
            finally:
                writer.abandon()
            self._source.check_unchanged()
        return self._folder.part(number, self._run)
