"""Indexes over millions of made-up labels: time to build, bytes a label, latency at a recall.

Usage: python benchmarks/scale.py [--labels N ...] [--families NAME ...] [--recall SHARE]

Labels lie around centres, as those of trained models do, with some lone ones; queries lie as far
from labels as they are from each other. For each family the setting is shown that answers one query
fastest of those that find the share asked for. Largest memory is that of the process so far.
"""

from __future__ import annotations

import argparse
import resource

import numpy as np
from machine import print_result

from motherlode.core.index import set_index_threads
from motherlode.core.index.grid import sweeps_of
from motherlode.core.index.tuning import Measured, Measurement
from motherlode.core.queries import FloatArray

WIDTH = 64
NUM_QUERIES = 500
LABELS_OF_CENTRE = 100
BLOCK = 1 << 18
FAMILIES = ("exact", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq", "scan_pq")


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--recall", type=float, default=0.95)
    options = parser.parse_args()
    set_index_threads(1)
    rows = []
    for num_labels in options.labels:
        labels_LD, queries_BD = made_up(num_labels)
        for family in options.families:
            measurement = Measurement(
                labels_LD=labels_LD,
                queries_BD=queries_BD,
                ks=(10,),
                num_hits=10,
                seed=0,
                other_bytes=0,
            )
            points = list(measurement.run(sweeps_of([family])))
            rows.append([f"{num_labels:,}", family, *row(points, options.recall, num_labels)])
            print(*rows[-1], flush=True)
    columns = ["labels", "index", "setting", "recall@10", "p50 ms", "p99 ms", "queries/s"]
    columns += ["bytes a label", "build s", "largest GiB"]
    print_result(f"scale, width {WIDTH}", columns, rows)


def made_up(num_labels: int) -> tuple[FloatArray, FloatArray]:
    """Labels float32 [L, D] and queries float32 [B, D], of length 1."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_labels // LABELS_OF_CENTRE, WIDTH), np.float32)
    labels_LD = np.empty((num_labels, WIDTH), np.float32)
    for start in range(0, num_labels, BLOCK):
        block = labels_LD[start : start + BLOCK]
        rng.standard_normal(dtype=np.float32, out=block)
        block *= rng.uniform(0.4, 1.4, (len(block), 1)).astype(np.float32)
        block += centres[rng.integers(0, len(centres), len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    queries_BD = labels_LD[rng.integers(0, num_labels, NUM_QUERIES)]
    queries_BD = queries_BD + 0.12 * rng.standard_normal(queries_BD.shape, np.float32)
    return labels_LD, queries_BD / np.linalg.norm(queries_BD, axis=1, keepdims=True)


def row(points: list[Measured], recall: float, num_labels: int) -> list[object]:
    """The fastest of those that find enough, or the one that finds most."""
    enough = [point for point in points if point.recall >= recall]
    best = min(enough, key=lambda p: p.p50_s) if enough else max(points, key=lambda p: p.recall)
    settings = best.config.model_dump(exclude={"kind", "codes"}, exclude_none=True)
    return [
        " ".join(f"{key}={value}" for key, value in settings.items()),
        round(best.recall, 4),
        round(1e3 * best.p50_s, 3),
        round(1e3 * best.p99_s, 3),
        round(best.queries_per_s),
        round(best.memory_bytes / num_labels, 1),
        round(best.build_s, 1),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    ]


if __name__ == "__main__":
    main()
