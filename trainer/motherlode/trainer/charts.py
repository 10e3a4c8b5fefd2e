"""The charts of a training report, as SVG that stands inside a page.

Colours are the page's own (`var(--ink)` and so on, see report.html), so that a chart follows the
page into dark mode and on to paper. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from motherlode.trainer.evaluation import Bucket

# Stand-ins for the page's colours: matplotlib takes no CSS variables.
_INK, _MUTED, _GRID, _ONE, _TWO = "#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005"
_PAGE_COLORS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _ONE: "var(--one)",
    _TWO: "var(--two)",
}
# Any: matplotlib's stubs list every setting by name, and not each release has the same.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "motherlode",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": _GRID,
    "grid.linewidth": 1.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_MAX_POINTS = 300


@final
@dataclass(frozen=True, slots=True)
class LossPoint:
    """Training loss at one moment.

    Attributes:
        examples: Training examples seen so far.
        loss: Mean loss since the point before.
    """

    examples: int
    loss: float


@final
@dataclass(frozen=True, slots=True)
class HeldOutPoint:
    """Quality on held-out queries at one moment of the training.

    Attributes:
        examples: Training examples seen so far.
        precision_at_1: P@1 in per cent.
        recall_at_10: R@10 in per cent.
    """

    examples: int
    precision_at_1: float
    recall_at_10: float


def loss_chart(points: Sequence[LossPoint]) -> str:
    """Training loss against examples seen; points that are not finite are left out.

    Raises:
        ValueError: If there is no finite point.
    """
    finite = [point for point in points if np.isfinite(point.loss)]
    if not finite:
        raise ValueError("a loss chart needs one finite point or more")
    examples, losses = _thinned([p.examples for p in finite], [p.loss for p in finite])
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        axes.plot(examples, losses, color=_ONE, marker=_marker(len(losses)))
        _finish_curve(axes)
        description = (
            f"Line: training loss {losses[0]:.3g} at the start, {losses[-1]:.3g} after "
            f"{finite[-1].examples:,} examples."
        )
        return _svg(figure, "loss", description)


def held_out_chart(points: Sequence[HeldOutPoint]) -> str:
    """P@1 and R@10 on held-out queries against examples seen.

    Raises:
        ValueError: If there is no point.
    """
    if not points:
        raise ValueError("a held-out chart needs one point or more")
    examples = [point.examples for point in points]
    last = points[-1]
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        recalls = [point.recall_at_10 for point in points]
        precisions = [point.precision_at_1 for point in points]
        marker = _marker(len(points))
        axes.plot(examples, recalls, color=_TWO, marker=marker, label="R@10")
        axes.plot(examples, precisions, color=_ONE, marker=marker, label="P@1")
        axes.set_ylim(0, min(100.0, 1.15 * max(*recalls, *precisions, 1.0)))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0)
        _finish_curve(axes)
        description = (
            f"Two lines: on held-out queries, P@1 {last.precision_at_1:.1f} % and "
            f"R@10 {last.recall_at_10:.1f} % after {last.examples:,} examples."
        )
        return _svg(figure, "held-out", description)


def recall_chart(buckets: Sequence[Bucket]) -> str:
    """R@10 of the labels of each frequency bucket, as bars."""
    values = [bucket.recall if bucket.num_pairs else None for bucket in buckets]
    return _bars(buckets, values, "R@10", color=_TWO, top=100.0)


def precision_chart(buckets: Sequence[Bucket]) -> str:
    """What the labels of each frequency bucket bring to the overall P@5, as bars."""
    values = [bucket.precision if bucket.num_labels else None for bucket in buckets]
    highest = max((value for value in values if value is not None), default=0.0)
    return _bars(buckets, values, "part of P@5", color=_ONE, top=max(highest, 1.0))


def bucket_name(bucket: Bucket) -> str:
    """The range of training queries, such as `2–5`."""
    if bucket.last is None:
        return f"> {bucket.first - 1}"
    if bucket.first == bucket.last:
        return str(bucket.first)
    return f"{bucket.first}–{bucket.last}"


def _bars(
    buckets: Sequence[Bucket],
    values: Sequence[float | None],
    what: str,
    *,
    color: str,
    top: float,
) -> str:
    names = [bucket_name(bucket) for bucket in buckets]
    texts = ["none" if value is None else f"{value:.1f}" for value in values]
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        heights = [value or 0.0 for value in values]
        bars = axes.bar(names, heights, width=0.62, color=color)
        for label, value in zip(axes.bar_label(bars, texts, padding=3), values, strict=True):
            label.set_color(_MUTED if value is None else _INK)
        axes.set_ylim(0, 1.12 * top)
        axes.set_yticks(_round_ticks(top))
        axes.set_xlabel("training queries of the label")
        told = ", ".join(f"{n}: {text}" for n, text in zip(names, texts, strict=True))
        description = f"Bars: {what} in per cent by training queries of the label. {told}."
        return _svg(figure, what, description)


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 2.9))
    axes = figure.add_axes((0.085, 0.17, 0.905, 0.73))
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    return figure, axes


def _finish_curve(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(_round_locator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_locator(_round_locator())
    axes.set_xlabel("training examples seen")


def _round_locator() -> MaxNLocator:
    return MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])


def _round_ticks(top: float) -> list[float]:
    return [float(tick) for tick in _round_locator().tick_values(0.0, top) if tick <= top]


def _marker(num_points: int) -> str:
    return "o" if num_points <= 12 else ""


def _short(number: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:g}{letter}"
    return f"{number:g}"


def _thinned(examples: Sequence[int], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most _MAX_POINTS points: each the mean of neighbours, at the last of them."""
    num_points = min(len(losses), _MAX_POINTS)
    parts = np.array_split(np.arange(len(losses)), num_points)
    means = [float(np.mean(np.asarray(losses)[part])) for part in parts]
    return [float(examples[part[-1]]) for part in parts], means


def _svg(figure: Figure, name: str, description: str) -> str:
    page = io.BytesIO()
    figure.savefig(page, format="svg", transparent=True, metadata=_NO_METADATA)
    opening, rest = page.getvalue().decode().split("<svg", 1)[1].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None  # matplotlib always writes one
    drawing = _fit_for_page(rest, re.sub(r"\W", "-", name))
    return f'<svg role="img" aria-label="{escape(description)}" {box[0]}>{drawing.rstrip()}'


def _fit_for_page(drawing: str, name: str) -> str:
    """The drawing with the page's colours and font, and with ids that no other chart has."""
    # Its style sheet would hold for the whole page.
    drawing = re.sub(r"<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"font-family: [^;]*; ?", "", drawing)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = drawing.replace("xlink:href=", "href=")
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for stand_in, color in _PAGE_COLORS.items():
        drawing = drawing.replace(stand_in, color)
    return drawing
