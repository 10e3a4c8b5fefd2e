"""`motherlode score`: the top labels of every row of a file, as Parquet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, final

from cyclopts import Parameter
from cyclopts.validators import Number
from typing_extensions import override

from motherlode.cli.output import print_json, print_note, print_table

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from motherlode.scoring import RowsDone, ScoringSummary
    from motherlode.scoring.scorer import OnRows

__all__ = ["score"]

_LINE_EVERY_S = 5.0


def score(  # noqa: PLR0913 - one argument per option of the command
    *,
    repository: Path,
    model: str,
    input: Path,  # noqa: A002 - the option is called --input
    output: Path,
    k: Annotated[int, Parameter(name=["--k", "-k"], validator=Number(gte=1))] = 10,
    rows_per_part: Annotated[int, Parameter(validator=Number(gte=1))] = 100_000,
    restart: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write the top labels of every query of a file as Parquet.

    A run that was cut off goes on where it stopped when the same command is given again: every row
    is written once. A finished run is left as it is.

    Args:
        repository: Folder of the published models.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; without a version the newest.
        input: Queries: .jsonl, .jsonl.gz, .parquet, .txt or .txt.gz.
        output: Folder for part-00000.parquet and so on.
        k: Labels per query.
        rows_per_part: Rows of each file but the last.
        restart: Drop what an earlier run left in the output folder and begin anew.
        json: Print a summary as JSON.
    """
    # Imported here, so that `--help` needs neither torch nor FAISS.
    from motherlode.core.repository import parse_model_ref  # noqa: PLC0415
    from motherlode.scoring import ScoringRequest, score_file  # noqa: PLC0415

    name, version = parse_model_ref(model)
    request = ScoringRequest(
        repository=repository,
        model=name,
        version=version,
        input=input,
        output=output,
        k=k,
        rows_per_part=rows_per_part,
        restart=restart,
    )
    with _progress() as on_rows:
        summary = score_file(request, on_rows=on_rows)
    if json:
        print_json(summary.as_dict())
    else:
        _print_summary(summary)


def _print_summary(summary: ScoringSummary) -> None:
    run, success = summary.run, summary.success
    if summary.is_nothing_done:
        print_note(f"Nothing to do: {summary.output} holds the finished run.")
    elif summary.num_before:
        print_note(f"Went on after {summary.num_before:,} rows of an earlier run.")
    if summary.rows_per_s:
        print_note(f"{summary.elapsed_s:.1f} s, {summary.rows_per_s:,.0f} rows/s")
    for note in summary.notes:
        print_note(f"Note: {note}.")
    columns = ["output", "model", "bundle", "rows", "hits", "parts"]
    model = f"{run.model}@{run.version}"
    counts = [success.num_rows, success.num_hits, len(success.parts)]
    print_table(columns, [[summary.output, model, run.bundle_digest[:12], *counts]])


@contextmanager
def _progress() -> Iterator[OnRows]:
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("scored", total=None)
            yield lambda done: _show(bar, task, done)
    else:
        yield _Lines().on_rows


def _bar() -> Progress:
    # Rich costs tens of milliseconds to import, so only a terminal pays for it.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        _rate_column(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _rate_column() -> ProgressColumn:
    from rich import progress  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class RateColumn(progress.ProgressColumn):
        @override
        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} rows/s")

    return RateColumn()


def _show(bar: Progress, task: TaskID, done: RowsDone) -> None:
    if done.num_rows == done.num_before:
        # What earlier runs did is no part of the speed of this one.
        bar.reset(task, completed=done.num_before, total=done.num_total)
    bar.update(task, completed=done.num_rows)


@final
class _Lines:
    """Progress as plain lines, one every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._started = self._last = monotonic()

    def on_rows(self, done: RowsDone) -> None:
        now = monotonic()
        if done.num_rows == done.num_before:
            self._started = self._last = now
        elif now - self._last >= _LINE_EVERY_S:
            self._last = now
            rate = (done.num_rows - done.num_before) / (now - self._started)
            total = "" if done.num_total is None else f" of {done.num_total:,}"
            print_note(f"scored {done.num_rows:,}{total} rows, {rate:,.0f} rows/s")
