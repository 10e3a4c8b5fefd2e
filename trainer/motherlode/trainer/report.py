"""The training report: one HTML file that needs nothing else, for people to judge a model by."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any, final

from motherlode.trainer.charts import (
    HeldOutPoint,
    LossPoint,
    bucket_name,
    held_out_chart,
    loss_chart,
    precision_chart,
    recall_chart,
)
from motherlode.trainer.evaluation import Bucket, Evaluation
from motherlode.trainer.examples import Example, Examples, Hit
from motherlode.trainer.page import (
    Html,
    figure_card,
    join,
    list_of,
    page,
    readable,
    table_card,
    text,
)

_TILES = {
    "P@1": "queries whose first hit is true",
    "nDCG@5": "true labels early among the first five hits",
    "PSP@5": "as P@5, rare labels counting more",
    "R@10": "true labels among the first ten hits",
}
_ROWS = {
    "P": "first k hits that are true",
    "nDCG": "early hits counting more",
    "PSP": "rare labels counting more",
    "PSnDCG": "early hits and rare labels counting more",
    "R": "true labels found in the first k hits",
}
_HEADLINES = frozenset(
    ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@3", "PSP@5", "R@1", "R@10", "R@100")
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """Everything that a report shows; equal content gives equal pages, byte by byte.

    Attributes:
        model: Name of the model.
        dataset: Name of the data set.
        evaluation: Figures.
        evaluated_on: What the figures were taken on, in the plural.
        losses: Training loss, in order.
        held_out: Quality on held-out queries during training, in order.
        examples: From `pick_examples`.
        facts: What the model is, such as `{"Labels": 34006}`; names are shown as they are.
        index: Kind and parameters of the index.
        index_recall: Share (0 to 1) of the exact answer that the index finds, such as
            `{"R@10": 0.998}`.
        digests: Names and hexadecimal digests.
        config: The resolved training configuration, nested as in its file.
        created_at: When, in words; empty shows nothing.
    """

    model: str
    dataset: str
    evaluation: Evaluation
    examples: Examples
    evaluated_on: str = "test queries"
    losses: Sequence[LossPoint] = ()
    held_out: Sequence[HeldOutPoint] = ()
    facts: Mapping[str, object]
    index: Mapping[str, object]
    index_recall: Mapping[str, float]
    digests: Mapping[str, str]
    config: Mapping[str, Any]
    created_at: str = ""


def render_report(content: ReportContent) -> str:
    """The page; write it as UTF-8. All text in it is escaped, and it loads nothing else."""
    sections = resources.files("motherlode.trainer").joinpath("report.html").read_text("utf-8")
    body = Template(sections).substitute(
        quality_note=_quality_note(content),
        quality=_quality(content.evaluation),
        training=_training(content),
        frequency=_frequency(content.evaluation.buckets),
        right=_cards(content.examples.right),
        wrong=_cards(content.examples.wrong),
        facts=_facts(content),
        config=_config(content.config),
    )
    return page(
        kind="Training report",
        title=f"{content.model} · {content.dataset} · training report",
        heading=content.model,
        lead=_lead(content),
        body=Html(body),
    )


def _lead(content: ReportContent) -> Html:
    made = f", {text(content.created_at)}" if content.created_at else ""
    return Html(f"Trained on <bdi>{text(content.dataset)}</bdi>{made}.")


def _quality_note(content: ReportContent) -> Html:
    evaluation = content.evaluation
    propensity = evaluation.propensity
    parts = [f"Per cent, on {evaluation.num_queries:,} {content.evaluated_on}."]
    if evaluation.num_unlabelled:
        parts.append(f"{evaluation.num_unlabelled:,} of them have no true label and count as 0.")
    parts.append(f"Propensities with A = {propensity.a:g} and B = {propensity.b:g}.")
    return text(" ".join(parts))


def _quality(evaluation: Evaluation) -> Html:
    figures = evaluation.figures
    tiles = join(
        f'<div class="card"><dt>{name}</dt><dd>{figures[name]:.1f} <small>%</small></dd>'
        f'<dd class="what">{what}</dd></div>'
        for name, what in _TILES.items()
        if name in figures
    )
    ks = sorted({int(name.partition("@")[2]) for name in figures})
    heads = join(f'<th scope="col">k = {k}</th>' for k in ks)
    rows = join(
        f'<tr><th scope="row">{row}@k<span>{what}</span></th>'
        + join(_figure_cell(figures, f"{row}@{k}") for k in ks)
        + "</tr>"
        for row, what in _ROWS.items()
    )
    table = table_card("Figures by depth", Html(f'<th scope="col">Figure</th>{heads}'), rows)
    return Html(f'<dl class="tiles">{tiles}</dl>{table}')


def _figure_cell(figures: Mapping[str, float], name: str) -> Html:
    if name not in figures:
        return Html('<td class="none">–</td>')
    style = ' class="head"' if name in _HEADLINES else ""
    return Html(f"<td{style}>{figures[name]:.2f}</td>")


def _training(content: ReportContent) -> Html:
    figures = []
    if any(math.isfinite(point.loss) for point in content.losses):
        chart = loss_chart(content.losses)
        figures.append(figure_card("Training loss", "mean since the point before", chart))
    if content.held_out:
        chart = held_out_chart(content.held_out)
        figures.append(
            figure_card("Held-out quality", "per cent, on queries kept out of training", chart)
        )
    if not figures:
        return Html('<p class="note">No learning curve was recorded.</p>')
    return Html(f'<div class="pair">{join(figures)}</div>')


def _frequency(buckets: Sequence[Bucket]) -> Html:
    recall = figure_card("R@10", "per cent of the range’s true labels", recall_chart(buckets))
    part = figure_card("Part of P@5", "per cent of the first five hits", precision_chart(buckets))
    columns = ("Training queries", "Labels", "True labels", "Queries", "R@10", "Part of P@5")
    heads = join(f'<th scope="col">{column}</th>' for column in columns)
    rows = join(map(_bucket_row, buckets))
    table = table_card("Quality by label frequency", heads, rows)
    return Html(f'<div class="pair">{recall}{part}</div>{table}')


def _bucket_row(bucket: Bucket) -> Html:
    recall = f"{bucket.recall:.2f}" if bucket.num_pairs else "–"
    cells = (
        f"{bucket.num_labels:,}",
        f"{bucket.num_pairs:,}",
        f"{bucket.num_queries:,}",
        recall,
        f"{bucket.precision:.2f}",
    )
    name = text(bucket_name(bucket))
    return Html(f'<tr><th scope="row">{name}</th>{join(f"<td>{c}</td>" for c in cells)}</tr>')


def _cards(examples: Sequence[Example]) -> Html:
    if not examples:
        return Html('<p class="note">There is none.</p>')
    return Html(f'<div class="pair">{join(map(_card, examples))}</div>')


def _card(example: Example) -> Html:
    hits = join(_hit(rank, hit) for rank, hit in enumerate(example.hits, start=1))
    return Html(
        f'<article class="card example"><p class="query"><bdi>{text(example.query)}</bdi></p>'
        f'<p class="truth">True: {_truth(example)}</p><ol class="hits">{hits}</ol>'
        f"{_rank_note(example)}</article>"
    )


def _truth(example: Example) -> Html:
    names = [f"<bdi>{text(label)}</bdi>" for label in example.true_labels]
    num_more = example.num_true - len(names)
    if num_more and names:
        names.append(f"{num_more:,} more")
    return Html(" · ".join(names) or f"{num_more:,} that the label table lacks")


def _hit(rank: int, hit: Hit) -> Html:
    style = ' class="true"' if hit.is_true else ""
    mark = ' <span class="mark">✓<span class="hidden"> true</span></span>' if hit.is_true else ""
    return Html(
        f"<li{style}><span>{rank}</span><span><bdi>{text(hit.label)}</bdi>{mark}</span>"
        f"<span>{hit.score:.3f}</span></li>"
    )


def _rank_note(example: Example) -> Html:
    if example.best_rank is None:
        return Html(f'<p class="rank">No true label among {example.num_hits:,} hits.</p>')
    if example.best_rank <= len(example.hits):
        return Html("")
    return Html(f'<p class="rank">First true label at place {example.best_rank:,}.</p>')


def _facts(content: ReportContent) -> Html:
    index = dict(content.index)
    for name, share in content.index_recall.items():
        index[f"{name} against exact search"] = f"{100 * share:.2f} %"
    digests = list_of(content.digests, lambda value: Html(f"<code>{text(value)}</code>"))
    return Html(
        f'<div class="pair"><div class="card"><h3>Size</h3>{list_of(content.facts, readable)}</div>'
        f'<div class="card"><h3>Index</h3>{list_of(index, readable)}</div></div>'
        f'<div class="card wide"><h3>Digests</h3>{digests}</div>'
    )


def _config(config: Mapping[str, Any]) -> Html:
    plain = {name: value for name, value in config.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in config.items() if isinstance(value, Mapping)}
    cards = [("General", plain)] if plain else []
    cards.extend((name, dict(_flat(value))) for name, value in sections.items())
    return Html(f'<div class="config">{join(_config_card(*card) for card in cards)}</div>')


def _config_card(name: str, values: Mapping[str, object]) -> Html:
    rows = list_of(values, lambda value: Html(f"<code>{text(_as_json(value))}</code>"))
    return Html(f'<div class="card"><h3>{text(name)}</h3>{rows}</div>')


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
