"""The chart of a tuning report: what each index setting finds, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from motherlode.trainer.drawing import GOOD, INK, MUTED, ONE, STYLE, TWO, panel, svg

# Families are told apart by colour and shape.
_LOOKS = [(color, marker) for marker in "osD^v" for color in (ONE, TWO, INK)]
_RECALLS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


@final
@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One index setting.

    Attributes:
        family: Of the index.
        cost: What less of is better, above 0.
        recall: Share found, 0 to 1.
        is_chosen: Whether it is the one that was published.
    """

    family: str
    cost: float
    recall: float
    is_chosen: bool


def front_chart(
    points: Sequence[FrontPoint], what: str, *, smallest_miss: float, goal: float | None = None
) -> str:
    """Recall against a cost; the scale of recall is logarithmic in the share that is missed.

    A line joins the settings that no other beats in both.

    Args:
        points: One or more.
        what: Name and unit of the cost.
        smallest_miss: Share, above 0, that counts as finding everything: below what can be told
            with so many queries.
        goal: Recall to reach, shown as a dotted line; None shows none.

    Raises:
        ValueError: If there is no point.
    """
    if not points:
        raise ValueError("a front chart needs one point or more")
    with mpl.rc_context(STYLE):
        figure, axes = panel()
        best = _undominated(points)
        missed = [_missed(point, smallest_miss) for point in best]
        axes.plot([p.cost for p in best], missed, color=MUTED, linewidth=1.2, zorder=1)
        if goal is not None:
            axes.axhline(max(1 - goal, smallest_miss), color=GOOD, linestyle=":", linewidth=1.5)
        families = list(dict.fromkeys(point.family for point in points))
        for family, (color, marker) in zip(families, _LOOKS, strict=False):
            _draw_family(axes, family, color, marker, points, smallest_miss)
        _ring_chosen(axes, points, smallest_miss)
        _finish(axes, what, points, smallest_miss)
        return svg(figure, f"front {what}", _describe(best, what))


def _missed(point: FrontPoint, smallest: float) -> float:
    return max(1 - point.recall, smallest)


def _undominated(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """By rising cost, those with more recall than all cheaper ones."""
    best: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.recall)):
        if not best or point.recall > best[-1].recall:
            best.append(point)
    return best


def _draw_family(
    axes: Axes,
    family: str,
    color: str,
    marker: str,
    points: Sequence[FrontPoint],
    smallest_miss: float,
) -> None:
    own = [point for point in points if point.family == family]
    costs, missed = [p.cost for p in own], [_missed(p, smallest_miss) for p in own]
    axes.scatter(costs, missed, s=26, color=color, marker=marker, label=family, zorder=2)


def _ring_chosen(axes: Axes, points: Sequence[FrontPoint], smallest_miss: float) -> None:
    for point in points:
        if point.is_chosen:
            place = [point.cost], [_missed(point, smallest_miss)]
            axes.scatter(
                *place, s=150, facecolors="none", edgecolors=GOOD, linewidths=2, label="chosen"
            )


def _finish(axes: Axes, what: str, points: Sequence[FrontPoint], smallest_miss: float) -> None:
    costs = [point.cost for point in points]
    # Costs of one order of magnitude have too few round ticks on a logarithmic scale.
    is_wide = max(costs) > 5 * min(costs)
    axes.set_xscale("log" if is_wide else "linear")
    axes.xaxis.set_major_locator(
        LogLocator(10, subs=(1.0, 2.0, 5.0)) if is_wide else MaxNLocator(6, min_n_ticks=2)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(what)
    axes.set_yscale("log")
    axes.invert_yaxis()
    most = max(_missed(point, smallest_miss) for point in points)
    axes.set_ylim(1.6 * most, smallest_miss / 1.6)
    ticks = _spaced([1 - r for r in _RECALLS if 1 - r <= 1.6 * most], smallest_miss)
    axes.set_yticks([*ticks, smallest_miss])
    axes.set_yticklabels([*(f"{100 * (1 - tick):.4g}" for tick in ticks), "100"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=6, frameon=False, borderpad=0,
        handletextpad=0.2, columnspacing=1.0,
    )  # fmt: skip


def _spaced(ticks: list[float], last: float) -> list[float]:
    """Those far enough apart, and from the last, for their texts on a logarithmic scale."""
    if not ticks:
        return []
    span = math.log(max(ticks) / last) / 8
    kept: list[float] = []
    for tick in ticks:
        is_apart = not kept or math.log(kept[-1] / tick) >= span
        if is_apart and math.log(tick / last) >= span:
            kept.append(tick)
    return kept


def _describe(best: Sequence[FrontPoint], what: str) -> str:
    told = ", ".join(f"{p.family} {100 * p.recall:.4g} % at {p.cost:.3g}" for p in best)
    return f"Points: recall in per cent against {what}. The best: {told}."
