"""One rival: trained on matrices, asked for the best labels, by the interpreter that has it.

Usage: python rival.py omikuji|omikuji-bonsai|pecos|napkinxc MATRICES RESULT

MATRICES holds x.npz and y.npz to learn from and test.npz to answer. RESULT gets the labels of each
query, best first, the seconds of both, and the size of the saved model. Imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

TOP = 10
THREADS = os.cpu_count() or 1


def main() -> None:
    """Train, ask, write."""
    name, folder, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    x, y, test = (narrow(sparse.load_npz(folder / f"{part}.npz")) for part in ("x", "y", "test"))
    run = {"pecos": run_pecos, "napkinxc": run_napkinxc}.get(name, run_omikuji)
    with tempfile.TemporaryDirectory() as scratch:
        train_s, predict_s, labels = run(name, Path(scratch), x, y, test)
        saved = Path(scratch) / "model"
        size_bytes = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
    document = {"train_s": train_s, "predict_s": predict_s, "size_bytes": size_bytes}
    result.write_text(json.dumps({**document, "labels": labels}))


def narrow(matrix: Any) -> Any:
    """With places of 32 bits, since PECOS takes no others."""
    places = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return sparse.csr_matrix((matrix.data, *places), matrix.shape)


def entries(matrix: Any, row: int) -> tuple[list[int], list[float]]:
    """Columns and values of a row."""
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part].tolist(), matrix.data[part].tolist()


def run_omikuji(
    name: str, scratch: Path, x: Any, y: Any, test: Any
) -> tuple[float, float, list[list[int]]]:
    """Parabel, which is its default, or Bonsai by the settings that its documentation gives."""
    import omikuji  # noqa: PLC0415 - one of them is there

    path = scratch / "train.txt"
    with path.open("w") as out:
        out.write(f"{x.shape[0]} {x.shape[1]} {y.shape[1]}\n")
        for row in range(x.shape[0]):
            labels = ",".join(map(str, entries(y, row)[0]))
            pairs = zip(*entries(x, row), strict=True)
            out.write(f"{labels} {' '.join(f'{column}:{value:.7g}' for column, value in pairs)}\n")
    settings = omikuji.Model.default_hyper_param()
    if name == "omikuji-bonsai":
        settings.cluster_k, settings.cluster_balanced, settings.min_branch_size = 100, False, 100
    started = time.perf_counter()
    model = omikuji.Model.train_on_data(str(path), settings, n_threads=THREADS)
    trained = time.perf_counter()
    queries = [list(zip(*entries(test, row), strict=True)) for row in range(test.shape[0])]
    asked = time.perf_counter()
    labels = [[label for label, _ in model.predict(query, top_k=TOP)] for query in queries]
    predicted = time.perf_counter()
    model.save(str(scratch / "model"))
    return trained - started, predicted - asked, labels


def run_napkinxc(
    name: str, scratch: Path, x: Any, y: Any, test: Any
) -> tuple[float, float, list[list[int]]]:
    """A probabilistic label tree."""
    del name
    from napkinxc.models import PLT  # noqa: PLC0415 - one of them is there

    model = PLT(str(scratch / "model"), threads=THREADS, seed=1)
    labels = [entries(y, row)[0] for row in range(y.shape[0])]
    started = time.perf_counter()
    model.fit(x, labels)
    trained = time.perf_counter()
    # It stops at a query without features.
    known = np.flatnonzero(np.diff(test.indptr) > 0)
    found: list[list[int]] = [[] for _ in range(test.shape[0])]
    asked = time.perf_counter()
    answers = model.predict(test[known], top_k=TOP)
    predicted = time.perf_counter()
    for row, answer in zip(known.tolist(), answers, strict=True):
        found[row] = list(map(int, answer))
    return trained - started, predicted - asked, found


def run_pecos(
    name: str, scratch: Path, x: Any, y: Any, test: Any
) -> tuple[float, float, list[list[int]]]:
    """XR-Linear over hierarchical k-means."""
    del name
    from pecos.xmc import Indexer, LabelEmbeddingFactory  # noqa: PLC0415 - one of them is there
    from pecos.xmc.xlinear.model import XLinearModel  # noqa: PLC0415

    started = time.perf_counter()
    embeddings = LabelEmbeddingFactory.create(y, x, method="pifa")
    clusters = Indexer.gen(embeddings, indexer_type="hierarchicalkmeans", threads=THREADS)
    model = XLinearModel.train(x, y, C=clusters, threads=THREADS)
    trained = time.perf_counter()
    scores = model.predict(test, only_topk=TOP, beam_size=10, threads=THREADS).tocsr()
    predicted = time.perf_counter()
    model.save(str(scratch / "model"))
    labels = []
    for row in range(scores.shape[0]):
        columns, values = entries(scores, row)
        labels.append([columns[i] for i in np.argsort(-np.array(values), kind="stable")])
    return trained - started, predicted - trained, labels


if __name__ == "__main__":
    main()
