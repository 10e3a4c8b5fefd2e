"""Ours beside omikuji, napkinXC and PECOS: same features, same machine, one run.

Usage: python benchmarks/rivals.py FOLDER --recipe RECIPE [--set KEY=VALUE ...] [--python PYTHON]
           [--rivals NAME ...] [--repository FOLDER]
       (a folder holds train, test and labels)

Rivals learn from the very features that ours makes of the training queries, with the settings that
they come with, on all cores. Each runs in a process of its own, by the interpreter that --python
names: `pip install omikuji napkinxc libpecos` there, since PECOS needs another numpy. What they are
asked about, and how answers are judged, is the same for all. Training seconds are without reading
and features.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import print_result
from scipy import sparse

from motherlode.core.queries import SparseQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.trainer.answers import answers
from motherlode.trainer.config import TrainConfig, load_config
from motherlode.trainer.data import Dataset, PositiveRows, load_dataset
from motherlode.trainer.evaluation import evaluate
from motherlode.trainer.preparation import load_test
from motherlode.trainer.progress import new_display
from motherlode.trainer.training import TrainingRequest, train_and_publish

RIVALS = ("omikuji", "omikuji-bonsai", "pecos", "napkinxc")
FIGURES = ("P@1", "P@3", "P@5", "PSP@5", "R@10")
TOP = 10


def main() -> None:
    """Train and ask all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--repository", type=Path, help="where to publish; by default nowhere")
    options = parser.parse_args()
    train = load_dataset(options.data, "train")
    test = load_test(options.data, train)
    assert test is not None, "the data needs a test part"
    config = load_config(options.recipe, options.set)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        repository = options.repository or Path(scratch) / "repository"
        retriever, row = ours(config, options.data, repository, train, test)
        rows.append(row)
        matrices = Path(scratch) / "matrices"
        write_matrices(matrices, retriever, train, test)
        for name in options.rivals:
            rows.append(rival(options.python, name, matrices, train, test))
            print(*rows[-1], flush=True)
    columns = ["", *FIGURES, "training s", "ms a query", "model MB"]
    print_result(f"rivals on {options.data.name}", columns, rows)


def ours(
    config: TrainConfig, data: Path, repository: Path, train: Dataset, test: Dataset
) -> tuple[Retriever, list[object]]:
    """The published model, and its row of the table."""
    request = TrainingRequest(config=config, data=data, repository=repository, model="ours")
    outcome = train_and_publish(request, new_display())
    retriever = Retriever.load(Repository(repository), "ours", outcome.version)
    features = retriever.path.featurizer.transform(test.queries)
    started = time.perf_counter()
    top = answers(retriever, features, TOP)
    seconds = time.perf_counter() - started
    files = retriever.manifest.files
    served = [name for name in files if not name.startswith(("training_state", "report"))]
    size = sum(files[name].size_bytes for name in served)
    row = ["ours", *figures_of(top, train, test), round(outcome.train_s, 1)]
    return retriever, [*row, round(1e3 * seconds / len(test), 3), round(size / 1e6)]


def write_matrices(folder: Path, retriever: Retriever, train: Dataset, test: Dataset) -> None:
    """Features and labels for the rivals, who stop at a training query that lacks either."""
    folder.mkdir()
    x, y = matrix_of(retriever, train), labels_of(train.positives, len(train.labels))
    kept = np.flatnonzero((np.diff(x.indptr) > 0) & (np.diff(y.indptr) > 0))
    sparse.save_npz(folder / "x.npz", x[kept])
    sparse.save_npz(folder / "y.npz", y[kept])
    sparse.save_npz(folder / "test.npz", matrix_of(retriever, test))


def matrix_of(retriever: Retriever, data: Dataset) -> sparse.csr_matrix:
    """float32 [B, F]."""
    features = retriever.path.featurizer.transform(data.queries)
    assert isinstance(features, SparseQueries)
    shape = len(features), features.num_features
    return sparse.csr_matrix((features.values, features.indices, features.indptr), shape)


def labels_of(positives: PositiveRows, num_labels: int) -> sparse.csr_matrix:
    """float32 [B, L], 1 for each positive."""
    ones = np.ones(len(positives.indices), np.float32)
    shape = len(positives), num_labels
    return sparse.csr_matrix((ones, positives.indices, positives.indptr), shape)


def rival(python: Path, name: str, matrices: Path, train: Dataset, test: Dataset) -> list[object]:
    """The row of a rival."""
    script = Path(__file__).with_name("rival.py")
    result = matrices / f"{name}.json"
    subprocess.run([python, script, name, matrices, result], check=True, stdout=subprocess.DEVNULL)
    document = json.loads(result.read_text())
    found = document["labels"]
    labels = np.array([label for row in found for label in row], np.int64)
    top = TopK(labels, np.zeros(len(labels), np.float32), np.array(list(map(len, found))))
    times = document["train_s"], 1e3 * document["predict_s"] / len(test)
    row = [name, *figures_of(top, train, test), round(times[0], 1), round(times[1], 3)]
    return [*row, round(document["size_bytes"] / 1e6)]


def figures_of(top: TopK, train: Dataset, test: Dataset) -> list[object]:
    """Quality of answers, per cent."""
    frequencies = test.labels.frequencies
    ks = (1, 3, 5, 10)
    result = evaluate(top, test.positives, test.num_true, frequencies, num_train=len(train), ks=ks)
    return [round(result.figures[name], 2) for name in FIGURES]


if __name__ == "__main__":
    main()
