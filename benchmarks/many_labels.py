"""Memory and time of training with millions of labels, in a process of its own.

Random data: 50,000 queries of 24 features out of 300,000, each with one of 5,000 of the labels;
decoupled softmax over the 64 hardest of 2,048 candidates, batches of 512. The table of 5,000,000
labels of width 128 has 2.4 GiB, its optimiser state 20 MB.

Usage: python benchmarks/many_labels.py [--labels N] [--width N] [--steps N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from machine import peak_gib, print_result
from random_queries import random_features

from motherlode.core.index import ExactConfig, build_index
from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.config import check_config
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.model import new_model
from motherlode.trainer.step import Step, new_sampler

NUM_QUERIES, NUM_FEATURES = 50_000, 300_000

COLUMNS = ["labels", "width", "table GiB", "start s", "ms a step", "loss at first and last step"]
COLUMNS += ["peak GiB", "peak with a validation GiB"]


def main() -> None:
    """Print what a run takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=5_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    features, positives = random_data(options.labels)
    config = check_config({"encoder": {"width": options.width}})
    began = time.perf_counter()
    model = new_model(config, features, positives, options.labels)
    start_s = time.perf_counter() - began
    step = Step(model, config, new_sampler(config, positives.counts(options.labels)), 10_000)
    source = BatchSource(features, positives, config.loop.batch_size, seed=0)
    times = [timed(step, source, number) for number in range(options.steps)]
    losses = [loss for loss, _ in times]
    step_s = statistics.median(seconds for _, seconds in times[options.steps // 4 :])
    trained_gib = peak_gib()
    build_index(ExactConfig(), model.label_embeddings(), seed=0)
    row = [
        f"{options.labels:,}",
        options.width,
        round(4 * options.labels * options.width / 2**30, 2),
        round(start_s, 1),
        round(1000 * step_s, 1),
        f"{losses[0]:.2f}, {losses[-1]:.2f}",
        round(trained_gib, 2),
        round(peak_gib(), 2),
    ]
    print_result("many labels", COLUMNS, [row])


def random_data(num_labels: int) -> tuple[SparseQueries, PositiveRows]:
    """Queries with features and a label at random."""
    rng = np.random.default_rng(0)
    features = random_features(rng, NUM_QUERIES, NUM_FEATURES)
    # About ten queries a label that has any: more than one, so that there is something to learn.
    labels = rng.choice(rng.integers(num_labels, size=NUM_QUERIES // 10), size=NUM_QUERIES)
    return features, PositiveRows(np.arange(NUM_QUERIES + 1, dtype=np.int64), labels)


def timed(step: Step, source: BatchSource, number: int) -> tuple[float, float]:
    """The loss of one step and its seconds."""
    began = time.perf_counter()
    loss = step.run(number, source.batch(number))
    return loss, time.perf_counter() - began


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
