"""The charts of a training report, as SVG that stands inside its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from motherlode.trainer.drawing import INK, MUTED, ONE, STYLE, TWO, panel, svg
from motherlode.trainer.evaluation import Bucket

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
    with mpl.rc_context(STYLE):
        figure, axes = panel()
        axes.plot(examples, losses, color=ONE, marker=_marker(len(losses)))
        _finish_curve(axes)
        description = (
            f"Line: training loss {losses[0]:.3g} at the start, {losses[-1]:.3g} after "
            f"{finite[-1].examples:,} examples."
        )
        return svg(figure, "loss", description)


def held_out_chart(points: Sequence[HeldOutPoint]) -> str:
    """P@1 and R@10 on held-out queries against examples seen.

    Raises:
        ValueError: If there is no point.
    """
    if not points:
        raise ValueError("a held-out chart needs one point or more")
    examples = [point.examples for point in points]
    last = points[-1]
    with mpl.rc_context(STYLE):
        figure, axes = panel()
        recalls = [point.recall_at_10 for point in points]
        precisions = [point.precision_at_1 for point in points]
        marker = _marker(len(points))
        axes.plot(examples, recalls, color=TWO, marker=marker, label="R@10")
        axes.plot(examples, precisions, color=ONE, marker=marker, label="P@1")
        axes.set_ylim(0, min(100.0, 1.15 * max(*recalls, *precisions, 1.0)))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0)
        _finish_curve(axes)
        description = (
            f"Two lines: on held-out queries, P@1 {last.precision_at_1:.1f} % and "
            f"R@10 {last.recall_at_10:.1f} % after {last.examples:,} examples."
        )
        return svg(figure, "held-out", description)


def recall_chart(buckets: Sequence[Bucket]) -> str:
    """R@10 of the labels of each frequency bucket, as bars."""
    values = [bucket.recall if bucket.num_pairs else None for bucket in buckets]
    return _bars(buckets, values, "R@10", color=TWO, top=100.0)


def precision_chart(buckets: Sequence[Bucket]) -> str:
    """What the labels of each frequency bucket bring to the overall P@5, as bars."""
    values = [bucket.precision if bucket.num_labels else None for bucket in buckets]
    highest = max((value for value in values if value is not None), default=0.0)
    return _bars(buckets, values, "part of P@5", color=ONE, top=max(highest, 1.0))


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
    with mpl.rc_context(STYLE):
        figure, axes = panel()
        heights = [value or 0.0 for value in values]
        bars = axes.bar(names, heights, width=0.62, color=color)
        for label, value in zip(axes.bar_label(bars, texts, padding=3), values, strict=True):
            label.set_color(MUTED if value is None else INK)
        axes.set_ylim(0, 1.12 * top)
        axes.set_yticks(_round_ticks(top))
        axes.set_xlabel("training queries of the label")
        told = ", ".join(f"{n}: {text}" for n, text in zip(names, texts, strict=True))
        description = f"Bars: {what} in per cent by training queries of the label. {told}."
        return svg(figure, what, description)


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
