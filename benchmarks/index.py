"""Index families: build time, memory, recall and latency; what the checks and the rescoring add.

Made-up labels around random directions, of even and of uneven lengths, as many as geonames
cities15000 has; queries are near to labels. Times are the least and the median of several rounds.

Usage: python benchmarks/index.py [--labels 34006] [--width 256] [--threads 1 2] [--embeddings FILE]

FILE is an .npz with real embeddings, `labels` and `queries`, both float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from machine import print_result
from typing_extensions import override

from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LabelFilter,
    LabelIndex,
    ScanConfig,
    build_index,
    load_index,
    measure_recall,
    set_index_threads,
)
from motherlode.core.index.index import LabelEmbeddings, Shortlist
from motherlode.core.queries import FloatArray, IntArray

CONFIGS: dict[str, IndexConfig] = {
    "exact": ExactConfig(),
    "ivf_flat nprobe 16": IvfFlatConfig(),
    "ivf_flat nprobe 64": IvfFlatConfig(nprobe=64),
    "hnsw ef 64": HnswConfig(),
    "hnsw ef 128": HnswConfig(ef_search=128),
    "hnsw sq8 ef 64": HnswConfig(codes="sq8"),
    "scan sq8": ScanConfig(codes="sq8"),
    "scan fp16": ScanConfig(codes="fp16"),
    "scan pq_fast_scan": ScanConfig(codes="pq_fast_scan"),
    "scan pq_fast_scan refine 32": ScanConfig(codes="pq_fast_scan", refine=32),
    "scan rabitq": ScanConfig(codes="rabitq"),
    "ivf sq8 nprobe 64": IvfConfig(codes="sq8", nprobe=64),
    "ivf pq nprobe 64": IvfConfig(codes="pq", nprobe=64),
    "ivf pq_fast_scan nprobe 64": IvfConfig(codes="pq_fast_scan", nprobe=64),
    "ivf pq_fast_scan nprobe 128": IvfConfig(codes="pq_fast_scan", nprobe=128),
    "ivf rabitq nprobe 64": IvfConfig(codes="rabitq", nprobe=64),
}
BATCHES = (1, 64)
NUM_QUERIES, K, ROUNDS = 512, 10, 5
SPREADS = {"even": 0.0, "uneven": 0.4}


class ReadyIndex(LabelIndex):
    """Proposes what it was given, at no cost: what is left is the work around FAISS."""

    kind: ClassVar[str] = "ready"
    rows_BC: IntArray

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        return Shortlist(self.rows_BC[: len(queries_BD)])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=34_006)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--embeddings", type=Path)
    options = parser.parse_args()
    set_index_threads(1)
    for name, spread in SPREADS.items():
        if options.embeddings is None:
            labels_LD, queries_BD = draw(options.labels, options.width, spread)
        else:
            labels_LD, queries_BD = read(options.embeddings, spread)
        indexes = build_all(name, labels_LD, queries_BD)
        measure_latency(name, indexes, queries_BD, options.threads)
        if name == "even":
            measure_surroundings(indexes["exact"], labels_LD, queries_BD)
            measure_filters(indexes, queries_BD)


def draw(num_labels: int, width: int, spread: float) -> tuple[FloatArray, FloatArray]:
    """Labels [L, D], twenty around each direction, and queries [B, D]."""
    generator = np.random.default_rng(0)
    centres_CD = unit(generator.standard_normal((num_labels // 20, width)))
    near_LD = centres_CD[generator.integers(len(centres_CD), size=num_labels)]
    noise = 0.9 / np.sqrt(width)
    labels_LD = unit(near_LD + noise * generator.standard_normal(near_LD.shape))
    asked_BD = labels_LD[generator.integers(num_labels, size=NUM_QUERIES)]
    queries_BD = unit(asked_BD + 2 * noise * generator.standard_normal(asked_BD.shape))
    labels_LD *= np.exp(spread * generator.standard_normal((num_labels, 1)))
    return labels_LD.astype(np.float32), queries_BD.astype(np.float32)


def read(path: Path, spread: float) -> tuple[FloatArray, FloatArray]:
    """Real labels [L, D], at other lengths if they are to spread, and queries [B, D]."""
    arrays = np.load(path)
    labels_LD, queries_BD = (np.ascontiguousarray(arrays[x]) for x in ("labels", "queries"))
    lengths_L1 = np.exp(spread * np.random.default_rng(0).standard_normal((len(labels_LD), 1)))
    return (labels_LD * lengths_L1).astype(np.float32), queries_BD[:NUM_QUERIES]


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build_all(name: str, labels_LD: FloatArray, queries_BD: FloatArray) -> dict[str, LabelIndex]:
    """Builds, saves and loads an index of each kind, once for all its search settings."""
    indexes, rows, built = {}, [], {}
    with tempfile.TemporaryDirectory() as folder:
        for label, config in CONFIGS.items():
            form = str(config.model_dump(exclude={"nprobe", "ef_search", "refine"}))
            path = Path(folder) / form
            if form not in built:
                start = time.perf_counter()
                index = build_index(config, labels_LD, seed=0)
                built[form] = time.perf_counter() - start
                index.save(path)
            start = time.perf_counter()
            indexes[label] = load_index(config, path, labels_LD, mmap=True)
            load_s = time.perf_counter() - start
            recalls = [measure_recall(indexes[label], labels_LD, queries_BD, k) for k in (10, 100)]
            rows.append(
                [
                    label,
                    indexes[label].factory,
                    f"{built[form]:.1f}",
                    f"{load_s * 1e3:.0f}",
                    f"{indexes[label].predicted_bytes / len(labels_LD):.0f}",
                    *(f"{recall:.4f}" for recall in recalls),
                ]
            )
    columns = ["index", "factory", "build s", "load ms", "bytes a label", "recall@10", "recall@100"]
    print_result(f"index: {len(labels_LD)} labels of {name} lengths", columns, rows)
    return indexes


def measure_latency(
    name: str, indexes: dict[str, LabelIndex], queries_BD: FloatArray, threads: list[int]
) -> None:
    """Prints microseconds a query by batch size and threads."""
    rows: list[list[object]] = []
    for label, index in indexes.items():
        for n in threads:
            set_index_threads(n)
            cells = [microseconds(index.search, queries_BD, size) for size in BATCHES]
            rows.append([label, n, *(cell for pair in cells for cell in pair)])
    columns = ["index", "threads"]
    columns += [
        f"batch {size}, {which} us a query" for size in BATCHES for which in ("min", "median")
    ]
    set_index_threads(1)
    print_result(f"index: latency with {name} lengths, k = {K}", columns, rows)


def measure_surroundings(exact: LabelIndex, labels_LD: FloatArray, queries_BD: FloatArray) -> None:
    """Prints what checks, rescoring, ordering and the answer cost without any index."""
    ready = ReadyIndex(ExactConfig(), None, LabelEmbeddings.checked(labels_LD))
    ready.rows_BC = exact.search(queries_BD, K + 8).labels.reshape(len(queries_BD), -1)
    rows = [
        [size, *microseconds(ready.search, queries_BD[:size], size, repeats=200)]
        for size in (1, 64)
    ]
    print_result("index: around FAISS", ["batch", "min us a query", "median us a query"], rows)


def measure_filters(indexes: dict[str, LabelIndex], queries_BD: FloatArray) -> None:
    """Prints latency and recall with a drawn share of the labels allowed."""
    generator, rows = np.random.default_rng(1), []
    num_labels = indexes["exact"].num_labels
    for share in (0.9, 0.5, 0.2, 0.05, 0.01):
        allowed = np.flatnonzero(generator.random(num_labels) < share)
        label_filter = LabelFilter(allowed, "allow")
        best = indexes["exact"].search(queries_BD, K, filter=label_filter)
        floor_B1 = best.scores.reshape(-1, K)[:, -1:]
        for label in ("exact", "ivf_flat nprobe 16", "hnsw ef 64", "scan pq_fast_scan"):
            search = partial(indexes[label].search, filter=label_filter)
            found = search(queries_BD, K).scores.reshape(-1, K)
            times = microseconds(search, queries_BD[:64], 1)
            rows.append([share, label, f"{(found >= floor_B1).mean():.4f}", *times])
    columns = ["share allowed", "index", "recall@10", "min us a query", "median us a query"]
    print_result("index: filters, one query at a time, 1 thread", columns, rows)


def microseconds(
    search: Callable[[FloatArray, int], object],
    queries_BD: FloatArray,
    size: int,
    *,
    repeats: int = 1,
) -> tuple[float, float]:
    """Least and median time a query over rounds through all queries in batches of a size."""
    times = []
    batches = [queries_BD[i : i + size] for i in range(0, len(queries_BD), size)] * repeats
    for _ in range(ROUNDS):
        for batch in batches:
            start = time.perf_counter()
            search(batch, K)
            times.append((time.perf_counter() - start) / size * 1e6)
    return round(min(times), 1), round(statistics.median(times), 1)


if __name__ == "__main__":
    main()
