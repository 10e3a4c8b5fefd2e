"""The report of a version whose index was chosen by measurement: one HTML file, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from motherlode.core.index.targets import Target
from motherlode.core.index.tuning import BATCH, Measured
from motherlode.trainer.front_chart import FrontPoint, front_chart
from motherlode.trainer.page import Html, figure_card, join, page, table_card, text

_MIB = 2.0**20


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TuningContent:
    """Everything that the report shows; equal content gives equal pages.

    Attributes:
        model: Name of the model.
        parent: Number of the version that was tuned.
        targets: What was to be reached.
        num_queries: Queries that it was measured with.
        num_hits: Hits that each search was asked for.
        num_threads: Threads of one search.
        settings: All that was measured.
        front: Those of them that no other beats in recall, latency and memory.
        chosen: The one that is published.
    """

    model: str
    parent: int
    targets: Sequence[Target]
    num_queries: int
    num_hits: int
    num_threads: int
    settings: Sequence[Measured]
    front: Sequence[Measured]
    chosen: Measured


def render_tuning_report(content: TuningContent) -> str:
    """The page; write it as UTF-8. All text in it is escaped, and it loads nothing else."""
    return page(
        kind="Index tuning report",
        title=f"{content.model} · index tuning report",
        heading=content.model,
        lead=_lead(content),
        body=Html(
            f'<section aria-labelledby="chosen"><h2 id="chosen">Chosen index</h2>'
            f"{_chosen(content)}</section>"
            f'<section aria-labelledby="front"><h2 id="front">Recall and what it costs</h2>'
            f"{_charts(content)}</section>"
            f'<section aria-labelledby="settings"><h2 id="settings">All settings</h2>'
            f"{_note(content)}{_table(content)}</section>"
        ),
    )


def settings_of(measured: Measured) -> str:
    """The settings of an index without its family, such as `nlist=738, nprobe=16`."""
    values = measured.config.model_dump(mode="json")
    named = [f"{name}={value}" for name, value in values.items() if name != "kind"]
    return ", ".join(part for part in named if not part.endswith("=None"))


def _lead(content: TuningContent) -> Html:
    aims = " and ".join(target.text for target in content.targets)
    return text(
        f"An index that meets {aims}, with the encoder and the labels of version {content.parent}, "
        "whose report says how the model was trained and how good its hits were."
    )


def _chosen(content: TuningContent) -> Html:
    chosen = content.chosen
    name = f"{chosen.family} {settings_of(chosen)}".strip()
    k = max(chosen.recalls)
    tiles = {
        f"Recall@{k}": (f"{100 * chosen.recall:.2f}", "%", "of the exact answer"),
        "Median": (f"{1e3 * chosen.p50_s:.3g}", "ms", "to search for one query alone"),
        "99th percentile": (f"{1e3 * chosen.p99_s:.3g}", "ms", "of the same"),
        "Memory": (f"{chosen.memory_bytes / _MIB:,.0f}", "MiB", "of all that is loaded, predicted"),
    }
    cards = join(
        f'<div class="card"><dt>{head}</dt><dd>{number} <small>{unit}</small></dd>'
        f'<dd class="what">{what}</dd></div>'
        for head, (number, unit, what) in tiles.items()
    )
    return Html(f'<p class="note">{text(name)}</p><dl class="tiles">{cards}</dl>')


def _charts(content: TuningContent) -> Html:
    k = max(content.chosen.recalls)
    # Half a hit of all that were to be found: less cannot be told from none.
    smallest = 0.5 / (content.num_queries * k)

    goal = next((target.bound for target in content.targets if target.k == k), None)

    def chart(cost: Callable[[Measured], float], what: str) -> str:
        points = [
            FrontPoint(m.family, cost(m), m.recall, m is content.chosen) for m in content.settings
        ]
        return front_chart(points, what, smallest_miss=smallest, goal=goal)

    latency = chart(lambda m: 1e3 * m.p50_s, "median latency of one query, ms")
    memory = chart(lambda m: m.memory_bytes / _MIB, "memory, MiB")
    title = f"Recall@{k}, per cent"
    first = figure_card(
        title, "against the time of one query; dotted: the target, if there is one", latency
    )
    second = figure_card(title, "against the memory of all that is loaded", memory)
    return Html(f'<div class="pair">{first}{second}</div>')


def _note(content: TuningContent) -> Html:
    threads = "one thread" if content.num_threads == 1 else f"{content.num_threads} threads"
    words = (
        f"Measured with {content.num_queries:,} queries, asking the index for {content.num_hits} "
        f"hits each, on {threads}: recall against exact search with its standard error, the time "
        "of one query after the other (the least of five rounds), and queries a second in batches "
        f"of {BATCH}. Settings on the front, which no other beats in recall, median and memory at "
        "once, are in bold; the chosen one is marked ✓. A sweep ends where its recall is reached "
        "or its time far exceeded. Encoding is no part of the times."
    )
    return Html(f'<p class="note">{text(words)}</p>')


def _table(content: TuningContent) -> Html:
    ks = sorted(content.chosen.recalls)
    columns = ["Index", *(f"Recall@{k} %" for k in ks), "Median ms", "p99 ms", "Queries/s"]
    columns += ["Memory MiB", "Build s"]
    heads = join(f'<th scope="col">{column}</th>' for column in columns)
    rows = join(_row(setting, ks, content) for setting in content.settings)
    return table_card("All settings", heads, rows)


def _row(setting: Measured, ks: Sequence[int], content: TuningContent) -> Html:
    recalls = [f"{100 * setting.recalls[k]:.2f} ± {100 * setting.recall_errors[k]:.2f}" for k in ks]
    cells = [
        *recalls,
        f"{1e3 * setting.p50_s:.3f}",
        f"{1e3 * setting.p99_s:.3f}",
        f"{setting.queries_per_s:,.0f}",
        f"{setting.memory_bytes / _MIB:,.1f}",
        f"{setting.build_s:.1f}",
    ]
    style = ' class="head"' if setting in content.front else ""
    mark = " ✓" if setting is content.chosen else ""
    name = f'<th scope="row">{text(setting.family)}{mark}<span>{text(settings_of(setting))}</span>'
    return Html(f"<tr>{name}</th>{join(f'<td{style}>{cell}</td>' for cell in cells)}</tr>")
