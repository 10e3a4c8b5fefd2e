"""Whether a training step costs the same for 30,000 labels and for 1,000,000.

Random data, the same batch, draws and features a query; medians over several rounds taken in turn,
so that a busy machine disturbs both alike.

Usage: python benchmarks/training_cost.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from machine import print_result
from random_queries import random_features

from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.model import new_model
from motherlode.trainer.step import Step, new_sampler

SIZES = ((30_000, 300_000), (1_000_000, 300_000), (30_000, 3_000_000))
NUM_QUERIES = 100_000
ROUNDS, STEPS = 7, 12


def runner(num_labels: int, num_features: int) -> tuple[Step, BatchSource]:
    """A run on random data of this size."""
    rng = np.random.default_rng(0)
    features = random_features(rng, NUM_QUERIES, num_features)
    positives = PositiveRows(
        np.arange(NUM_QUERIES + 1, dtype=np.int64), rng.integers(num_labels, size=NUM_QUERIES)
    )
    config = TrainConfig()
    model = new_model(config, features, positives, num_labels)
    sampler = new_sampler(config, positives.counts(num_labels))
    return Step(model, config, sampler, 10_000), BatchSource(
        features, positives, config.loop.batch_size, seed=0
    )


def main() -> None:
    """Print examples a second by number of labels and features."""
    torch.set_num_threads(2)
    runs = [runner(*size) for size in SIZES]
    rates: list[list[float]] = [[] for _ in SIZES]
    for number in range(ROUNDS + 1):
        for i, (step, source) in enumerate(runs):
            began = time.perf_counter()
            for s in range(number * STEPS, (number + 1) * STEPS):
                step.run(s, source.batch(s))
            if number:  # the first round warms up
                rates[i].append(STEPS * 512 / (time.perf_counter() - began))
    medians = [statistics.median(rate) for rate in rates]
    rows = [
        [f"{labels:,}", f"{features:,}", f"{median:,.0f}", f"{medians[0] / median:.2f}"]
        for (labels, features), median in zip(SIZES, medians, strict=True)
    ]
    print_result("training cost", ["labels", "features", "examples/s", "times the first"], rows)


if __name__ == "__main__":
    main()
