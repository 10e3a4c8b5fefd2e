"""Where the time of a training step goes, and what part of it is matrix products.

Each product of the step's shapes (scores, their two gradients, the head's three times two) is run
bare in between the steps, on the same threads, so that a busy machine disturbs both alike. The last
figure is the median of all bare products over the median step.

With one thread the clock is the processor time of that thread, which others on the machine disturb
least; with more it is the clock on the wall.

Usage: python benchmarks/step.py RECIPE FOLDER [--set KEY=VALUE ...] [--threads N] [--steps N]
       (a folder holds train and labels)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import final

import torch
from machine import print_result
from torch import Tensor

from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import TrainConfig, load_config
from motherlode.trainer.loop import LabelledFeatures
from motherlode.trainer.model import new_model
from motherlode.trainer.preparation import prepare
from motherlode.trainer.products import matmul_dtype
from motherlode.trainer.regularizers import new_regularizer
from motherlode.trainer.step import Step, new_sampler

WARM_UP = 8


def main() -> None:
    """Print the parts of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_config(options.recipe, options.set)
    data = prepare(config, options.folder)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    steps = TimedSteps(config, data.learned_from, len(data.whole.labels), clock)
    print_result(
        f"step: {options.recipe} {' '.join(options.set)} on {options.threads} threads",
        ["part", "ms", "share"],
        steps.rows(options.steps),
    )


@final
class TimedSteps:
    """Steps on real data, each followed by the bare products of its shapes."""

    def __init__(
        self,
        config: TrainConfig,
        train: LabelledFeatures,
        num_labels: int,
        clock: Callable[[], float],
    ) -> None:
        model = new_model(config, train.features, train.positives, num_labels)
        self._clock = clock
        self._laps: dict[str, list[float]] = defaultdict(list)
        self._last = 0.0
        self._step = Step(
            model,
            config,
            new_sampler(config, train.positives.counts(num_labels)),
            10_000,
            regularizer=new_regularizer(config.regularizer, train.positives, num_labels),
        )
        self._step.lap = self._lap
        loop = config.loop
        self._source = BatchSource(train.features, train.positives, loop.batch_size, config.seed)
        self._products = products(config, num_labels)

    def rows(self, num_steps: int) -> list[list[object]]:
        """Median milliseconds of each part, of the step, and of the bare products."""
        wholes, bare = [], []
        for number in range(-WARM_UP, num_steps):
            if number == 0:
                self._laps.clear()
                wholes.clear()
                bare.clear()
            wholes.append(self._one(number + WARM_UP))
            bare.append(sum(self._timed(product) for product in self._products))
        whole = statistics.median(wholes)
        parts = {name: statistics.median(laps) for name, laps in self._laps.items()}
        parts |= {"whole step": whole, "bare products": statistics.median(bare)}
        return [
            [name, f"{1000 * seconds:.2f}", f"{100 * seconds / whole:.0f} %"]
            for name, seconds in parts.items()
        ]

    def _one(self, number: int) -> float:
        began = self._last = self._clock()
        batch = self._source.batch(number)
        self._lap("batch")
        self._step.run(number, batch)
        return self._clock() - began

    def _lap(self, part: str) -> None:
        now = self._clock()
        self._laps[part].append(now - self._last)
        self._last = now

    def _timed(self, product: Callable[[], Tensor]) -> float:
        began = self._clock()
        product()
        return self._clock() - began


def products(config: TrainConfig, num_labels: int) -> list[Callable[[], Tensor]]:
    """The matrix products of a step whose queries share their negatives, forward and backward."""
    width, hidden = config.encoder.width, config.encoder.head.hidden
    num_negatives = min(getattr(config.negatives, "num_candidates", num_labels), num_labels)
    dtype = matmul_dtype(config.loop.matmul) or torch.float32
    scores = _three(config.loop.batch_size, num_negatives, width, dtype)
    if not hidden:
        return scores
    shapes = [(hidden, width), (width, hidden)]
    head = [_three(config.loop.batch_size, *shape, torch.float32) for shape in shapes]
    return [*scores, *head[0], *head[1]]


def _three(
    num_rows: int, num_outputs: int, num_inputs: int, dtype: torch.dtype
) -> list[Callable[[], Tensor]]:
    """The product of queries and weights, and the gradients of both."""
    x = torch.randn(num_rows, num_inputs).to(dtype)
    weights = torch.randn(num_outputs, num_inputs).to(dtype)
    gradients = torch.randn(num_rows, num_outputs).to(dtype)
    return [lambda: x @ weights.T, lambda: gradients @ weights, lambda: gradients.T @ x]


if __name__ == "__main__":
    main()
