"""How a run shows itself: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import override

from motherlode.trainer.checkpoint import Point


class RunDisplay(ABC):
    """Told of every step and validation of a run."""

    @abstractmethod
    def start(self, step: int, num_steps: int) -> None:
        """The run begins, or goes on, after `step` of `num_steps` steps."""

    @abstractmethod
    def step(self, loss: float, num_examples: int) -> None:
        """A step is done."""

    @abstractmethod
    def point(self, point: Point) -> None:
        """A validation is done."""

    @abstractmethod
    def stop(self) -> None:
        """The run is over, or has failed."""


@final
class _Meter:
    """Smoothed loss and examples a second."""

    def __init__(self) -> None:
        self.loss = 0.0
        self._examples = 0
        self._seconds = 0.0
        self._last = time.perf_counter()

    def step(self, loss: float, num_examples: int) -> None:
        now = time.perf_counter()
        first = not self._examples
        self.loss = loss if first else 0.98 * self.loss + 0.02 * loss
        self._examples += num_examples
        self._seconds += now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave out the time since the last step, which was spent on something else."""
        self._last = time.perf_counter()

    @property
    def examples_per_s(self) -> float:
        return self._examples / self._seconds if self._seconds else 0.0


def figures_text(point: Point) -> str:
    """A validation as `P@1 57.8  R@10 83.3`."""
    return "  ".join(f"{name} {value:.1f}" for name, value in point.figures.items())


@final
class TerminalDisplay(RunDisplay):
    """A progress bar with loss, held-out quality and examples a second."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
        )
        self._meter = _Meter()
        self._quality = ""

    @override
    def start(self, step: int, num_steps: int) -> None:
        self._task = self._bar.add_task("", total=num_steps, completed=step, facts="")
        self._meter.skip()
        self._bar.start()

    @override
    def step(self, loss: float, num_examples: int) -> None:
        self._meter.step(loss, num_examples)
        rate = f"{self._meter.examples_per_s:,.0f} examples/s"
        facts = f"loss {self._meter.loss:.3f}  {self._quality}  {rate}"
        self._bar.update(self._task, advance=1, facts=facts)

    @override
    def point(self, point: Point) -> None:
        self._quality = figures_text(point)
        self._meter.skip()

    @override
    def stop(self) -> None:
        self._bar.stop()


@final
class LineDisplay(RunDisplay):
    """One line a validation, and one every few seconds between them."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._meter = _Meter()
        self._next_s = 0.0

    @override
    def start(self, step: int, num_steps: int) -> None:
        self._step, self._num_steps = step, num_steps
        self._meter.skip()
        self._next_s = time.perf_counter() + self._every_s

    @override
    def step(self, loss: float, num_examples: int) -> None:
        self._step += 1
        self._meter.step(loss, num_examples)
        if time.perf_counter() >= self._next_s:
            self._write("")

    @override
    def point(self, point: Point) -> None:
        self._write(figures_text(point))
        self._meter.skip()

    @override
    def stop(self) -> None:
        sys.stderr.flush()

    def _write(self, quality: str) -> None:
        sys.stderr.write(
            f"training: step {self._step:,} of {self._num_steps:,}  loss {self._meter.loss:.3f}  "
            f"{quality}{'  ' if quality else ''}{self._meter.examples_per_s:,.0f} examples/s\n"
        )
        self._next_s = time.perf_counter() + self._every_s


@final
class SilentDisplay(RunDisplay):
    """Shows nothing."""

    @override
    def start(self, step: int, num_steps: int) -> None:
        pass

    @override
    def step(self, loss: float, num_examples: int) -> None:
        pass

    @override
    def point(self, point: Point) -> None:
        pass

    @override
    def stop(self) -> None:
        pass


def new_display() -> RunDisplay:
    """The display that fits where stderr goes."""
    return TerminalDisplay() if sys.stderr.isatty() else LineDisplay()
