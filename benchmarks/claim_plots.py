"""What the claims look like: quality by setting, along a run, and by frequency of the label."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from trials import Trial

Result = tuple[str, str, list[Trial]]
PANELS: dict[str, Callable[[Trial], float]] = {
    "P@1 on test queries": lambda trial: trial.figures["P@1"],
    "R@10 on test queries": lambda trial: trial.figures["R@10"],
    "P@1 on training queries, less that on test queries": lambda trial: (
        trial.seen_figures["P@1"] - trial.figures["P@1"]
    ),
}


def plot_figures(path: Path, results: list[Result]) -> None:
    """A panel for each figure, a line for each group; bars are one standard deviation."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for axis, (title, value_of) in zip(axes, PANELS.items(), strict=True):
        for group in dict.fromkeys(group for group, _, _ in results):
            chosen = [(name, trials) for found, name, trials in results if found == group]
            names = [name for name, _ in chosen]
            values = [[value_of(trial) for trial in trials] for _, trials in chosen]
            means, deviations = _means(values), [_deviation(v) for v in values]
            axis.errorbar(names, means, deviations, marker="o", capsize=3, label=group)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    _add_legend(figure, axes[0])
    figure.savefig(path)


def plot_curves(path: Path, results: list[Result]) -> None:
    """P@1 and R@10 of test queries against seconds of the processor; the mean over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    for column, (axis, shown) in enumerate(zip(axes, ("P@1", "R@10"), strict=True), start=1):
        for group, name, trials in results:
            points = np.mean([trial.curve for trial in trials], axis=0)
            label = _name(group, name)
            axis.plot(points[:, 0], points[:, column], marker="o", markersize=3, label=label)
        axis.set_xscale("log")
        axis.set_xlabel("processor seconds of training")
        axis.set_title(f"{shown} on 2,000 test queries, per cent")
        axis.grid(alpha=0.3)
    _add_legend(figure, axes[0])
    figure.savefig(path)


def plot_groups(path: Path, results: list[Result]) -> None:
    """Bars of P@1 by training queries of the most frequent true label."""
    groups = list(results[0][2][0].groups)
    figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(results)
    for place, (group, name, trials) in enumerate(results):
        values = [[trial.groups[key] for trial in trials] for key in groups]
        x = np.arange(len(groups)) + (place - (len(results) - 1) / 2) * width
        deviations = [_deviation(v) for v in values]
        axis.bar(x, _means(values), width, yerr=deviations, capsize=2, label=_name(group, name))
    axis.set_xticks(np.arange(len(groups)), groups)
    axis.set_xlabel("training queries of the most frequent true label")
    axis.set_title("P@1 on test queries, per cent")
    _add_legend(figure, axis)
    figure.savefig(path)


def _add_legend(figure: Figure, axis: Axes) -> None:
    """Below the panels, where it hides nothing."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")


def _name(group: str, name: str) -> str:
    return f"{group}, {name}" if name else group


def _means(values: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.mean(v) for v in values]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
