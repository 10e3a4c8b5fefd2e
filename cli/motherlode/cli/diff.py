"""`motherlode diff`: how the answers of two versions differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.output import print_json, print_line, print_note, print_table

if TYPE_CHECKING:
    from motherlode.scoring.diff import Mover, Named, VersionDiff

__all__ = ["diff"]

_SHOWN_LABELS = 5
_JSON_LABELS = 1000
_SHOWN_CHARACTERS = 100


def diff(  # noqa: PLR0913 - one argument per option of the command
    a: str,
    b: str,
    /,
    *,
    repository: Path,
    queries: Path,
    k: Annotated[int, Parameter(name=("--k", "-k"), validator=Number(gte=1))] = 10,
    movers: Annotated[int, Parameter(validator=Number(gte=0))] = 5,
    threads: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Compare the answers of two versions of a model, or of two models.

    Both are asked all queries of a file, in the way in which they are served. Labels are compared
    by their keys. overlap@k is the share of the k labels that both give, on average; the movers are
    the queries with the least of it. Latency is that of one query alone, of 200 at most.

    Args:
        a: MODEL, MODEL@VERSION or MODEL@ALIAS; without a version the newest.
        b: What to compare it with, likewise.
        repository: Folder of the published models.
        queries: Queries: .jsonl, .jsonl.gz, .parquet, .txt or .txt.gz; labels are not needed.
        k: Labels per query.
        movers: Most queries to show with both answers.
        threads: Threads of one encode or search.
        json: Print one JSON document.
    """
    # Imported here, so that `--help` needs neither torch nor FAISS.
    from motherlode.scoring.diff import DiffRequest, diff_versions  # noqa: PLC0415

    outcome = diff_versions(
        DiffRequest(
            repository=repository,
            first=a,
            second=b,
            queries=queries,
            k=k,
            num_movers=movers,
            num_threads=threads,
        )
    )
    if json:
        print_json(_document(outcome))
    else:
        _print(outcome)


def _document(outcome: VersionDiff) -> dict[str, Any]:
    shift = outcome.comparison.shift
    sides = {
        side: {
            "model": outcome.names[i],
            "bundle_digest": outcome.digests[i],
            "score_meaning": outcome.score_meanings[i],
            "num_labels": outcome.num_labels[i],
            **asdict(outcome.latencies[i]),
        }
        for i, side in enumerate(("a", "b"))
    }
    return sides | {
        "num_queries": outcome.num_queries,
        "k": outcome.k,
        **_shares(outcome),
        "score_shift": None if shift is None else asdict(shift),
        "num_added": len(outcome.added),
        "num_removed": len(outcome.removed),
        "added": outcome.added[:_JSON_LABELS],
        "removed": outcome.removed[:_JSON_LABELS],
        "movers": [_mover_document(mover) for mover in outcome.movers],
    }


def _shares(outcome: VersionDiff) -> dict[str, float]:
    comparison = outcome.comparison
    return {
        f"overlap@{outcome.k}": float(comparison.overlaps_B.mean()),
        "same_first": float(comparison.same_first_B.mean()),
        "same_answer": float(comparison.same_answer_B.mean()),
    }


def _mover_document(mover: Mover) -> dict[str, Any]:
    fields = asdict(mover)
    return fields | {"a": fields.pop("first"), "b": fields.pop("second")}


def _print(outcome: VersionDiff) -> None:
    title = f"{outcome.names[0]} (A) and {outcome.names[1]} (B), {outcome.num_queries:,} queries"
    rows = [[name.replace("_", " "), f"{share:.2%}"] for name, share in _shares(outcome).items()]
    print_table(["answers", "share"], rows, title=title)
    print_line()
    _print_shift(outcome)
    times = [
        [name, num_labels, 1e3 * latency.p50_s, 1e3 * latency.p99_s]
        for name, num_labels, latency in zip(
            outcome.names, outcome.num_labels, outcome.latencies, strict=True
        )
    ]
    print_table(["version", "labels", "p50 ms", "p99 ms"], times, decimals=3)
    print_line()
    print_line(f"labels added: {_listed(outcome.added)}; removed: {_listed(outcome.removed)}")
    for mover in outcome.movers:
        print_line()
        _print_mover(mover)


def _print_shift(outcome: VersionDiff) -> None:
    shift = outcome.comparison.shift
    if shift is None:
        print_line("no label is in both answers to a query, so no scores can be compared")
    else:
        columns = ["score of B less A", "mean", "p5", "p50", "p95", "largest"]
        figures = (shift.mean, shift.p5, shift.p50, shift.p95, shift.largest)
        row = [f"{figure:+.3g}" for figure in figures]
        print_table(columns, [[f"of {shift.num_hits:,} hits of both", *row]])
    if outcome.score_meanings[0] != outcome.score_meanings[1]:
        meanings = " and ".join(outcome.score_meanings)
        print_note(f"Note: the scores mean different things ({meanings}): their shift says little.")
    print_line()


def _listed(keys: list[str]) -> str:
    if not keys:
        return "none"
    shown = ", ".join(keys[:_SHOWN_LABELS])
    return f"{len(keys):,} ({shown}{', ...' if len(keys) > _SHOWN_LABELS else ''})"


def _print_mover(mover: Mover) -> None:
    name = f"record {mover.id}" if mover.text is None else mover.text
    short = name if len(name) <= _SHOWN_CHARACTERS else name[: _SHOWN_CHARACTERS - 1] + "…"
    num_rows = max(len(mover.first), len(mover.second))
    rows = [
        [i + 1, *_cells(mover.first, mover.second, i), *_cells(mover.second, mover.first, i)]
        for i in range(num_rows)
    ]
    columns = ["rank", "", "A", "score", "", "B", "score"]
    print_table(columns, rows, title=f"{short}: overlap {mover.overlap:.2f}")


def _cells(hits: tuple[Named, ...], others: tuple[Named, ...], rank: int) -> list[object]:
    """A mark where the other answer lacks the label, the label's text, and its score."""
    if rank >= len(hits):
        return [None, None, None]
    hit = hits[rank]
    is_common = any(other.key == hit.key for other in others)
    return ["" if is_common else "*", hit.text, hit.score]
