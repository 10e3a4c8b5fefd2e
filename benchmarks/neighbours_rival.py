"""One library of nearest neighbours, by the interpreter that has it; imports nothing of ours.

Usage: python neighbours_rival.py hnswlib|usearch|scann FOLDER THREADS BATCH K

FOLDER holds labels.npy and queries.npy, float32, and best.npy, the K-th best inner product of each
query. points.json gets recall, queries a second and seconds to build of each setting.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

Search = Callable[[Any, int], Any]
Setting = tuple[str, float, Search]


def main() -> None:
    """Build, sweep, write."""
    name, folder, threads, batch, k = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    labels, queries, best = (np.load(folder / f"{x}.npy") for x in ("labels", "queries", "best"))
    settings = {"hnswlib": hnswlib_settings, "usearch": usearch_settings, "scann": scann_settings}
    points = []
    for setting, build_s, search in settings[name](labels, threads, k):
        recall = recall_of(search, labels, queries, best, k)
        speed = queries_per_s(search, queries, batch, k)
        points.append(
            {"setting": setting, "recall": recall, "queries_per_s": speed, "build_s": build_s}
        )
    (folder / "points.json").write_text(json.dumps(points))


def recall_of(search: Search, labels: Any, queries: Any, best: Any, k: int) -> float:
    """Share of what is found that is no worse than the k-th best."""
    found = np.asarray(search(queries, k)).astype(np.int64)
    scores = np.einsum("bkd,bd->bk", labels[found], queries)
    return float((scores >= best[:, None] - 1e-5).mean())


def queries_per_s(search: Search, queries: Any, batch: int, k: int) -> float:
    """The median batch of the median round."""
    speeds = []
    for _ in range(ROUNDS):
        times = []
        for start in range(0, len(queries) - batch + 1, batch):
            part = queries[start : start + batch]
            started = time.perf_counter()
            search(part, k)
            times.append(time.perf_counter() - started)
        speeds.append(batch / float(np.median(times)))
    return float(np.median(speeds))


def hnswlib_settings(labels: Any, threads: int, k: int) -> Iterator[Setting]:
    """Graphs of 16 and 32 neighbours."""
    import hnswlib  # noqa: PLC0415 - one of them is there

    def ask(index: Any, queries: Any, k: int) -> Any:
        return index.knn_query(queries, k=k)[0]

    for neighbours in (16, 32):
        started = time.perf_counter()
        index = hnswlib.Index(space="ip", dim=labels.shape[1])
        index.init_index(max_elements=len(labels), M=neighbours, ef_construction=200)
        index.add_items(labels, num_threads=threads)
        build_s = time.perf_counter() - started
        index.set_num_threads(threads)
        for ef in EFS:
            index.set_ef(max(ef, k))
            yield f"M={neighbours} ef={ef}", build_s, partial(ask, index)


def usearch_settings(labels: Any, threads: int, k: int) -> Iterator[Setting]:
    """Graphs of 16 and 32 neighbours."""
    del k
    from usearch.index import Index  # noqa: PLC0415 - one of them is there

    def ask(index: Any, queries: Any, k: int) -> Any:
        return index.search(queries, k, threads=threads).keys

    for neighbours in (16, 32):
        started = time.perf_counter()
        width = labels.shape[1]
        options = {"metric": "ip", "dtype": "f32", "expansion_add": 200}
        index = Index(ndim=width, connectivity=neighbours, **options)
        index.add(np.arange(len(labels)), labels, threads=threads)
        build_s = time.perf_counter() - started
        for ef in EFS:
            index.expansion_search = ef
            yield f"M={neighbours} ef={ef}", build_s, partial(ask, index)


def scann_settings(labels: Any, threads: int, k: int) -> Iterator[Setting]:
    """Its tree of the square root of all labels, anisotropic quantisation, and reordering."""
    import scann  # noqa: PLC0415 - one of them is there

    num_leaves = int(len(labels) ** 0.5)
    started = time.perf_counter()
    builder = scann.scann_ops_pybind.builder(labels, k, "dot_product")
    index = (
        builder.tree(num_leaves=num_leaves, num_leaves_to_search=16, training_sample_size=250_000)
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )
    build_s = time.perf_counter() - started
    index.set_num_threads(threads)
    ask = index.search_batched if threads == 1 else index.search_batched_parallel
    for leaves in (4, 8, 16, 32, 64, 128, num_leaves):
        for reorder in (30, 100, 300):

            def search(q: Any, k: int, leaves: int = leaves, reorder: int = reorder) -> Any:
                return ask(
                    q,
                    final_num_neighbors=k,
                    leaves_to_search=leaves,
                    pre_reorder_num_neighbors=reorder,
                )[0]

            yield f"leaves={leaves} reorder={reorder}", build_s, search


if __name__ == "__main__":
    main()
