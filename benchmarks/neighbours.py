"""Our index on trained label embeddings beside hnswlib, usearch and ScaNN.

Usage: python benchmarks/neighbours.py REPOSITORY MODEL[@VERSION] [--python PYTHON]
           [--recall SHARE ...] [--threads N ...] [--rivals NAME ...] [--families NAME ...]

All of them find the 10 labels with the highest inner products of queries that the model did not
learn from (those that its bundle keeps), asked for in batches of 64. Each is tried with many
settings; what counts is the most queries a second of those that find the share asked for. Rivals
run by the interpreter that --python names: `pip install hnswlib usearch scann` there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import print_result

from motherlode.core.bundle import read_bundle
from motherlode.core.index import ExactConfig, build_index, set_index_threads
from motherlode.core.index.grid import sweeps_of
from motherlode.core.index.tuning import BATCH, Measured, Measurement
from motherlode.core.queries import FloatArray
from motherlode.core.repository import Repository, parse_model_ref

RIVALS = ("hnswlib", "usearch", "scann")
K = 10


def main() -> None:
    """Measure all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--recall", type=float, nargs="*", default=[0.95, 0.99])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--families", nargs="*", help="of our index; by default all")
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    options = parser.parse_args()
    repository = Repository(options.repository)
    name, version = parse_model_ref(options.model)
    bundle = read_bundle(repository.path_of(name, repository.resolve(name, version)))
    queries_BD = bundle.query_sample()
    assert queries_BD is not None, "the bundle keeps no queries to measure with"
    labels_LD = np.array(bundle.labels_LD)
    rows: list[list[object]] = []
    for threads in options.threads:
        found = [ours(labels_LD, queries_BD, threads, options.families)]
        found += [
            rival(options.python, name, labels_LD, queries_BD, threads) for name in options.rivals
        ]
        for recall in options.recall:
            rows += [row(points, recall, threads) for points in found]
    sizes = f"{len(labels_LD):,} x {labels_LD.shape[1]}"
    columns = ["", "threads", "asked", "setting", "recall@10", "queries/s", "build s"]
    print_result(f"{options.model}, {sizes}, {len(queries_BD):,} queries", columns, rows)


def ours(
    labels_LD: FloatArray, queries_BD: FloatArray, threads: int, families: list[str] | None
) -> list[dict[str, object]]:
    """Every setting of the grid."""
    set_index_threads(threads)
    measurement = Measurement(
        labels_LD=labels_LD, queries_BD=queries_BD, ks=(K,), num_hits=K, seed=0, other_bytes=0
    )
    return [point_of(measured) for measured in measurement.run(sweeps_of(families))]


def point_of(measured: Measured) -> dict[str, object]:
    """One setting of ours, as the rivals' are."""
    settings = measured.config.model_dump(exclude={"kind"}, exclude_none=True)
    return {
        "name": "ours",
        "setting": f"{measured.family} {' '.join(f'{k}={v}' for k, v in settings.items())}",
        "recall": measured.recall,
        "queries_per_s": measured.queries_per_s,
        "build_s": measured.build_s,
    }


def rival(
    python: Path, name: str, labels_LD: FloatArray, queries_BD: FloatArray, threads: int
) -> list[dict[str, object]]:
    """Every setting of a rival."""
    set_index_threads(threads)
    best = build_index(ExactConfig(), labels_LD, seed=0).search(queries_BD, K)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part, array in (("labels", labels_LD), ("queries", queries_BD)):
            np.save(folder / f"{part}.npy", array)
        np.save(folder / "best.npy", best.scores.reshape(-1, K)[:, -1])
        script = Path(__file__).with_name("neighbours_rival.py")
        command = [python, script, name, folder, str(threads), str(BATCH), str(K)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        points: list[dict[str, object]] = json.loads((folder / "points.json").read_text())
    return [{"name": name, **point} for point in points]


def row(points: list[dict[str, object]], recall: float, threads: int) -> list[object]:
    """The fastest of those that find enough."""
    enough = [point for point in points if float(str(point["recall"])) >= recall]
    if not enough:
        return [points[0]["name"], threads, recall, "none finds so many", "", "", ""]
    best = max(enough, key=lambda point: float(str(point["queries_per_s"])))
    figures = [round(float(str(best[key])), n) for key, n in (("recall", 4), ("queries_per_s", 0))]
    build_s = round(float(str(best["build_s"])), 1)
    return [best["name"], threads, recall, best["setting"], *figures, build_s]


if __name__ == "__main__":
    main()
