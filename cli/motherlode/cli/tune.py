"""`motherlode tune`: another index for a published model, chosen by what it reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from motherlode.cli.output import print_json, print_line, print_note, print_table
from motherlode.core.errors import GateError
from motherlode.core.index import IndexConfig
from motherlode.core.index.grid import Sweep
from motherlode.core.index.tuning import Measured
from motherlode.core.repository import parse_model_ref
from motherlode.trainer.index_tuning import TuningOutcome, TuningRequest, tune_index
from motherlode.trainer.tuning_report import settings_of

__all__ = ["tune"]

_MIB = 2.0**20


def tune(  # noqa: PLR0913 - one argument per option of the command
    *,
    repository: Path,
    model: str,
    target: Annotated[tuple[str, ...], Parameter(negative=())],
    queries: Path | None = None,
    families: Annotated[
        tuple[str, ...] | None, Parameter(negative=(), consume_multiple=True)
    ] = None,
    threads: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Publish a version whose index meets targets, at the least cost.

    Index families and their settings are measured against exact search, and the cheapest setting
    that meets all targets is published as a new version: where recall is a target, the one that
    answers a single query fastest; otherwise the one with the highest recall. Of about equally
    fast ones it is that with the least memory, then that which is built soonest. Encoder, labels
    and ranker stay as they are; the version's report.html shows all settings in a chart.

    If none meets the targets, nothing is published and the exit status is 3.

    Args:
        repository: Folder of the published models.
        model: MODEL, MODEL@VERSION or MODEL@ALIAS; without a version the newest.
        target: What to reach; may be repeated. One of recall@K>=SHARE, p50<=TIME, p99<=TIME (of the
            search for one query alone), qps>=NUMBER (in batches of 64), memory<=SIZE (of all that
            is loaded, as `motherlode inspect` predicts it) and build<=TIME. Such as
            `--target 'recall@10>=0.99' --target 'p99<=2ms' --target 'memory<=512MiB'`.
        queries: Queries to measure with, 100 or more that the model did not learn from, as .jsonl,
            .jsonl.gz, .parquet, .txt or .txt.gz; labels are not needed. Without it, those that the
            bundle keeps.
        families: Index families to try, such as `--families exact hnsw`; without it all.
        threads: Threads of one search, as the server shall have.
        dry_run: Measure and show, but publish nothing.
        json: Print one JSON document.
    """
    name, version = parse_model_ref(model)
    request = TuningRequest(
        repository=repository,
        model=name,
        version=version,
        targets=target,
        queries=queries,
        families=families,
        num_threads=threads,
        publish=not dry_run,
    )
    outcome = tune_index(request, on_built=_note_built)
    if json:
        print_json(_document(name, outcome))
    else:
        _print(name, outcome)
    if outcome.chosen is None:
        raise GateError(_shortfall(outcome))


def _note_built(sweep: Sweep, config: IndexConfig, build_s: float) -> None:
    del config
    print_note(f"built {sweep.family} in {build_s:.1f} s")


def _document(model: str, outcome: TuningOutcome) -> dict[str, Any]:
    head = {"model": model, "parent": outcome.parent, "version": outcome.version}
    chosen = None if outcome.chosen is None else outcome.row(outcome.chosen)
    return head | {"chosen": chosen, "best": outcome.row(outcome.best)} | outcome.document()


def _print(model: str, outcome: TuningOutcome) -> None:
    ks = sorted(outcome.best.recalls)
    recalls = [column for k in ks for column in (f"recall@{k}", "±")]
    columns = ["", "index", "settings", *recalls, "p50 ms", "p99 ms", "queries/s", "MiB", "build s"]
    title = f"{model}@{outcome.parent}, {outcome.num_queries:,} queries"
    print_table(columns, [_row(outcome, m, ks) for m in outcome.settings], title=title)
    print_note("* on the front: no other beats it in recall, p50 and memory at once; > chosen")
    if outcome.chosen is None:
        return
    what = f"{outcome.chosen.family} {settings_of(outcome.chosen)}".rstrip()
    if outcome.version is None:
        print_line(f"would publish {model} with {what}")
    else:
        print_line(f"published {model}@{outcome.version} with {what}")


def _row(outcome: TuningOutcome, measured: Measured, ks: list[int]) -> list[object]:
    mark = ">" if measured is outcome.chosen else "*" if measured in outcome.front else ""
    recalls = [value for k in ks for value in (measured.recalls[k], measured.recall_errors[k])]
    times = [f"{1e3 * seconds:.3f}" for seconds in (measured.p50_s, measured.p99_s)]
    sizes = [f"{measured.memory_bytes / _MIB:.1f}", f"{measured.build_s:.1f}"]
    speed = f"{measured.queries_per_s:.0f}"
    return [mark, measured.family, settings_of(measured), *recalls, *times, speed, *sizes]


def _shortfall(outcome: TuningOutcome) -> str:
    """What was missed, and by how much, by the setting that came nearest."""
    best = outcome.best
    missed = [t for t in outcome.targets if t.shortfall(best.value(t)) > 0]
    told = ", ".join(f"{t.name} {t.show(best.value(t))}" for t in missed)
    name = f"{best.family} {settings_of(best)}".rstrip()
    aims = " and ".join(target.text for target in outcome.targets)
    return f"no index setting meets {aims}; {name} comes nearest, with {told}; nothing published"
