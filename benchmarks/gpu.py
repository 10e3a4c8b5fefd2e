"""Searching and training on a GPU, beside the CPU of the same machine.

Usage: python benchmarks/gpu.py [DATA...]

Label embeddings are clustered and of length 1, queries lie near labels. Each line is the median of
several searches after one that does not count; recall is that of the best 10 against the exact
ones. Each data set is trained with the recipe of its name on both devices, without its ranker,
which is fitted on the CPU anyway.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import print_result

from motherlode.core.index import (
    ExactConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LabelIndex,
    build_index,
    set_index_threads,
)
from motherlode.core.index.gpu import to_gpu
from motherlode.core.queries import FloatArray
from motherlode.core.topk import TopK
from motherlode.trainer.config import load_config
from motherlode.trainer.progress import SilentDisplay
from motherlode.trainer.training import TrainingRequest, train_and_publish

NUM_LABELS, WIDTH, K = 1_000_000, 128, 10
BATCHES = (1, 64, 1024)
REPEATS = 7
FAMILIES: dict[str, IndexConfig] = {
    "exact": ExactConfig(),
    "ivf_flat": IvfFlatConfig(nlist=1024, nprobe=16),
    "ivf sq8": IvfConfig(nlist=1024, nprobe=16, codes="sq8"),
}


def main() -> None:
    """Searches, then trainings."""
    set_index_threads(len(os.sched_getaffinity(0)))
    labels_LD, queries_BD = clustered(NUM_LABELS, max(BATCHES))
    best, rows = None, []
    for name, config in FAMILIES.items():
        index = build_index(config, labels_LD, seed=0)
        best = index.search(queries_BD, K) if best is None else best
        for place, searched in places(index):
            rows.append([name, place, *measure(searched, queries_BD, best)])
    title = f"{NUM_LABELS:,} labels, width {WIDTH}, k = {K}"
    batches = [f"ms, batch {size}" for size in BATCHES]
    print_result(title, ["index", "where", *batches, "queries/s", "recall@10"], rows)
    for folder in map(Path, sys.argv[1:]):
        train(folder)


def clustered(num_labels: int, num_queries: int) -> tuple[FloatArray, FloatArray]:
    """Labels around 1,000 middles, and queries near some of them: both of length 1."""
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(1000, WIDTH, generator=generator)
    of_each = torch.randint(1000, (num_labels,), generator=generator)
    labels = middles[of_each] + 0.7 * torch.randn(num_labels, WIDTH, generator=generator)
    labels /= torch.linalg.vector_norm(labels, dim=1, keepdim=True)
    chosen = torch.randint(num_labels, (num_queries,), generator=generator)
    queries = labels[chosen] + 0.03 * torch.randn(num_queries, WIDTH, generator=generator)
    queries /= torch.linalg.vector_norm(queries, dim=1, keepdim=True)
    return labels.numpy(), queries.numpy()


def places(index: LabelIndex) -> list[tuple[str, LabelIndex]]:
    """Where an index is searched."""
    found = [("cpu", index), ("gpu", to_gpu(index))]
    if index.kind == "exact":
        found.append(("gpu, 16 bits", to_gpu(index, fp16=True)))
    return found


def measure(index: LabelIndex, queries_BD: FloatArray, best: TopK) -> list[object]:
    """Milliseconds by batch, queries a second of the largest, recall."""
    times = [1e3 * seconds(index, queries_BD[:size]) for size in BATCHES]
    top = index.search(queries_BD, K)
    found = [np.isin(top.row(i)[0], best.row(i)[0]).mean() for i in range(len(queries_BD))]
    rate = round(1e3 * BATCHES[-1] / times[-1])
    return [*(round(time_ms, 2) for time_ms in times), rate, round(float(np.mean(found)), 4)]


def seconds(index: LabelIndex, queries_BD: FloatArray) -> float:
    """Median time of a search."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        index.search(queries_BD, K)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def train(folder: Path) -> None:
    """Train the recipe of a data set on both devices."""
    rows = []
    for device in ("cuda", "cpu"):
        config = load_config(folder.name, [f"loop.device={device}", "ranker.kind=none"])
        with tempfile.TemporaryDirectory() as models:
            request = TrainingRequest(
                config=config, data=folder, repository=Path(models), model=folder.name
            )
            outcome = train_and_publish(request, SilentDisplay())
        figures = [outcome.figures[name] for name in ("P@1", "P@5", "R@10")]
        rows.append([device, round(outcome.train_s, 1), round(outcome.total_s, 1), *figures])
    columns = ["device", "training s", "with all else s", "P@1", "P@5", "R@10"]
    print_result(f"{folder.name}, the recipe without its ranker", columns, rows)


if __name__ == "__main__":
    main()
