"""`motherlode bench`: load a server and see how long its answers take."""

from __future__ import annotations

import asyncio
import re
import signal
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.access import Access
from motherlode.cli.output import print_json, print_line, print_note, print_table
from motherlode.cli.query import config_error, model_options

if TYPE_CHECKING:
    from motherlode.clients import QueryBatch
    from motherlode.clients.load import (
        ClosedLoop,
        LatencyHistogram,
        LoadProtocol,
        LoadReport,
        OpenLoop,
    )

__all__ = ["bench"]

INTERRUPTED = 130
_MOST_QUERIES = 10_000
_READ_BATCH = 1000
_LONGEST_S = 86_400.0
_MOST_CALLERS = 100_000
_UNITS_S = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_PLOT_SUFFIXES = (".png", ".svg", ".pdf")
# Part of the median latency that may come from calls sent late before the figures are in doubt.
_LATENESS_SHARE = 0.1
_NO_ACCESS = Access()

Count = Annotated[int, Parameter(validator=Number(gte=1, lte=_MOST_CALLERS))]


def bench(  # noqa: PLR0913 - one argument per option of the command
    *,
    target: str,
    queries: Path,
    model: str | None = None,
    rate: Annotated[float | None, Parameter(validator=Number(gt=0, lte=1e6))] = None,
    concurrency: Count | None = None,
    duration: str = "10s",
    k: Annotated[int, Parameter(name=("--k", "-k"), validator=Number(gte=1))] = 10,
    batch: Count = 1,
    connections: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 1,
    timeout_s: Annotated[float, Parameter(validator=Number(gt=0, lte=_LONGEST_S))] = 10.0,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    allow_remote: Annotated[bool, Parameter(negative=())] = False,
    plot: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    access: Access = _NO_ACCESS,
) -> int:
    """Load a server, and show how long its answers take.

    With `--rate` calls come at random times (Poisson), whether or not earlier ones were answered,
    as those of many independent callers do, and latency counts from the time when a call was due.
    Otherwise some callers make one call after another, and latency counts from the sending.

    One call on each connection goes ahead and is not counted. Nothing is tried again. Ctrl-C ends
    the run early and shows what there is (exit status 130).

    Args:
        target: HOST:PORT of the server.
        queries: What to ask: .jsonl, .jsonl.gz, .parquet, .txt or .txt.gz; labels are not needed.
            The first 10,000 are asked, again from the start when all have been.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; MODEL alone means its serving version. If the
            server has one model, it may be left out.
        rate: Calls per second on average (open loop).
        concurrency: Callers at a time (closed loop); 1 where neither this nor `--rate` is given.
        duration: How long calls are made, such as 500ms, 10s or 2min, up to a day.
        k: Labels per query.
        batch: Queries per call.
        connections: Connections to the server, which take turns.
        timeout_s: Seconds until a call has failed.
        seed: Of the random times.
        allow_remote: Load another machine than this one, too.
        plot: Draw the latencies into this .png, .svg or .pdf file.
        json: Print one JSON document.
        access: How to prove who calls.
    """
    load, duration_s = _load_of(rate, concurrency, seed), _seconds(duration)
    _check(target, plot, allow_remote=allow_remote)
    protocol = _protocol(target, queries, model, k, batch, connections, timeout_s, access)
    answered_by, report = _run(protocol, load, duration_s)
    _draw(plot, report, f"{answered_by}, {_loop_name(load)}")
    if json:
        call = {"k": k, "queries_per_call": batch, "connections": connections}
        head = {"target": target, "model": answered_by, "load": _loop_document(load, duration_s)}
        print_json(head | {"call": call} | report.document())
    else:
        _print(f"{answered_by} at {target}, {_loop_name(load)}, k = {k}", report)
    _print_doubts(report)
    return INTERRUPTED if report.is_interrupted else 0


def _protocol(  # noqa: PLR0913, PLR0917 - what options say of the calls
    target: str,
    queries: Path,
    model: str | None,
    k: int,
    batch: int,
    connections: int,
    timeout_s: float,
    access: Access,
) -> LoadProtocol:
    # Imported here, as all of the clients, so that `--help` needs neither gRPC nor NumPy.
    from motherlode.clients.load import MotherlodeProtocol  # noqa: PLC0415
    from motherlode.clients.question import Question  # noqa: PLC0415

    return MotherlodeProtocol(
        target,
        _read_queries(queries, batch),
        Question(k=k, **model_options(model)),
        queries_per_call=batch,
        connections=connections,
        timeout_s=timeout_s,
        tls=access.encryption(),
        key=access.key(),
    )


def _run(
    protocol: LoadProtocol, load: OpenLoop | ClosedLoop, duration_s: float
) -> tuple[str, LoadReport]:
    from motherlode.clients.load import precise_event_loop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        return runner.run(_connect_and_run(protocol, load, duration_s))


async def _connect_and_run(
    protocol: LoadProtocol, load: OpenLoop | ClosedLoop, duration_s: float
) -> tuple[str, LoadReport]:
    from motherlode.clients.load import run_load  # noqa: PLC0415

    stop = asyncio.Event()
    try:
        answered_by = await protocol.connect()
        # From now on there is something to show; until then Ctrl-C does what it always does.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        report = await run_load(protocol, load, duration_s=duration_s, stop=stop)
    finally:
        await protocol.close()
    return answered_by, report


def _load_of(rate: float | None, concurrency: int | None, seed: int) -> OpenLoop | ClosedLoop:
    from motherlode.clients.load import ClosedLoop, OpenLoop  # noqa: PLC0415

    if rate is None:
        return ClosedLoop(concurrency or 1)
    if concurrency is not None:
        raise config_error("--rate", "either --rate or --concurrency", "both")
    return OpenLoop(rate, seed)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    unit = None if match is None else _UNITS_S.get(match[2])
    seconds = 0.0 if match is None or unit is None else float(match[1]) * unit
    if not 0 < seconds <= _LONGEST_S:
        raise config_error("--duration", "a time up to a day, such as 500ms, 10s or 2min", text)
    return seconds


def _check(target: str, plot: Path | None, *, allow_remote: bool) -> None:
    _check_target(target, allow_remote=allow_remote)
    _check_plot(plot)


def _check_target(target: str, *, allow_remote: bool) -> None:
    from motherlode.clients.load import is_loopback  # noqa: PLC0415

    if not (allow_remote or is_loopback(target)):
        expected = "an address of this machine (localhost, 127.0.0.1, [::1]), or --allow-remote"
        raise config_error("--target", expected, target)


def _check_plot(path: Path | None) -> None:
    """Finds out before the run, not after it, that a plot cannot be drawn."""
    if path is None:
        return
    import matplotlib  # noqa: F401, PLC0415

    if path.suffix not in _PLOT_SUFFIXES:
        raise config_error("--plot", f"a name that ends in {', '.join(_PLOT_SUFFIXES)}", path)
    if not path.absolute().parent.is_dir():
        raise config_error("--plot", "a file in a folder that exists", path)


def _read_queries(path: Path, batch: int) -> QueryBatch:
    """The first queries of a file, in the clients' form."""
    from motherlode.core.queries import concatenate  # noqa: PLC0415
    from motherlode.core.records import read_records  # noqa: PLC0415

    batches = islice(read_records(path, batch_size=_READ_BATCH), _MOST_QUERIES // _READ_BATCH)
    read = [batch.queries for batch in batches]
    if sum(map(len, read)) < batch:
        expected = f"at least the {batch} queries of a call in {path}"
        raise config_error("--queries", expected, sum(map(len, read)))
    return _as_batch(concatenate(read))


def _as_batch(queries: Any) -> QueryBatch:
    from motherlode.clients import query_batch  # noqa: PLC0415
    from motherlode.core.queries import SparseQueries, TextQueries  # noqa: PLC0415

    if isinstance(queries, TextQueries):
        return query_batch(queries.texts)
    if isinstance(queries, SparseQueries):
        return query_batch(sparse=(queries.indptr, queries.indices, queries.values))
    return query_batch(features=queries.features_BF)


def _loop_document(load: OpenLoop | ClosedLoop, duration_s: float) -> dict[str, object]:
    return {"kind": type(load).__name__, **asdict(load), "duration_s": duration_s}


def _loop_name(load: OpenLoop | ClosedLoop) -> str:
    from motherlode.clients.load import OpenLoop  # noqa: PLC0415

    if isinstance(load, OpenLoop):
        return f"open loop, {load.rate:g} calls/s"
    return f"closed loop, {load.concurrency} " + ("caller" if load.concurrency == 1 else "callers")


def _print(title: str, report: LoadReport) -> None:
    columns = ["status", "calls", "share", "mean ms", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"]
    rows = [_row(report, status) for status in report.ordered()]
    print_table([*columns, "max ms"], rows, title=title, decimals=2)
    print_line()
    queries = report.queries_per_call
    print_line(
        f"offered {report.offered_rate:,.1f} calls/s for {report.sending_s:.2f} s; answered"
        f" {report.achieved_rate:,.1f} calls/s, {report.achieved_rate * queries:,.1f} queries/s"
    )
    if len(report.lateness):
        p50, p99, longest = (_ms(report.lateness, share) for share in (0.5, 0.99, 1.0))
        print_line(f"sent late by {p50:.2f} ms (p50), {p99:.2f} ms (p99), {longest:.2f} ms (max)")
    for status in report.ordered():
        if message := report.statuses[status].message:
            print_note(f"{status}: {message}")


def _row(report: LoadReport, status: str) -> list[object]:
    latencies = report.statuses[status].latencies
    mean_ms = 1e3 * (latencies.mean_s or 0.0)
    times = [_ms(latencies, share) for share in (0.5, 0.9, 0.99, 0.999, 1.0)]
    return [status, len(latencies), f"{len(latencies) / report.num_calls:.2%}", mean_ms, *times]


def _ms(latencies: LatencyHistogram, share: float) -> float:
    return 1e3 * (latencies.quantile(share) or 0.0)


def _print_doubts(report: LoadReport) -> None:
    """What makes the figures say less than they seem to."""
    late, median = report.lateness.quantile(0.5), report.answered.quantile(0.5)
    if late is not None and median is not None and late > _LATENESS_SHARE * median:
        print_note(
            "Note: half of the calls were sent late by more than a tenth of the median latency:"
            " this machine is too busy for the rate, and the latencies hold its delay too."
        )
    if report.is_interrupted:
        print_note("Note: interrupted; the figures are of what was done by then.")


def _draw(path: Path | None, report: LoadReport, title: str) -> None:
    if path is None:
        return
    from motherlode.cli.latency_plot import draw_latencies  # noqa: PLC0415

    draw_latencies(path, report, title=title)
    print_note(f"drew {path}")
