"""The learned index against exact search and against FAISS IVF, at equal numbers of labels scored.

A model is trained by its recipe, or taken from a repository that has it, and its encoder and label
embeddings stay as they are: what differs is the index alone. IVF has as many lists as the learned
index has clusters; the learned index scores as many labels as IVF does on average at each nprobe.
All compare a query with each cluster besides. 100 hits are asked for, so that figures for fewer
labels than some 110 mean nothing: each index then looks further.

Usage: python benchmarks/learned_index.py FOLDER --recipe RECIPE [--repository FOLDER]
           [--set KEY=VALUE ...] [--nprobe N ...] [--held-out]
       (the first folder holds train, test and labels)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import print_result

from motherlode.core.bundle import Bundle, read_bundle
from motherlode.core.index import (
    ExactConfig,
    IvfFlatConfig,
    LabelIndex,
    LearnedConfig,
    LearnedIndex,
    build_index,
    set_index_threads,
)
from motherlode.core.queries import FloatArray
from motherlode.core.repository import Repository
from motherlode.trainer.config import TrainConfig, load_config
from motherlode.trainer.data import Dataset
from motherlode.trainer.evaluation import PropensityConfig
from motherlode.trainer.learned_index.building import train_in_stages
from motherlode.trainer.model import Model
from motherlode.trainer.preparation import TrainingData, prepare
from motherlode.trainer.progress import new_display
from motherlode.trainer.publishing import evaluate_path
from motherlode.trainer.training import TrainingRequest, train_and_publish
from motherlode.trainer.warm_start import warm_model

FIGURES = ("R@100", "R@10", "P@1", "P@3", "P@5")
K = 100


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--repository", type=Path, help="has the model, or keeps it")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--nprobe", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--held-out", action="store_true", help="not the test queries")
    options = parser.parse_args()
    set_index_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        repository = options.repository or Path(scratch)
        bundle = trained_bundle(options.recipe, options.data, repository)
        config = load_config(options.recipe, ["index.kind=learned", *options.overrides])
        rows = measure(config, bundle, options)
    columns = ["index", "labels scored", *FIGURES, "us a query", "training s"]
    print_result(f"learned index: {options.recipe}", columns, rows)


def trained_bundle(recipe: str, data: Path, repository: Path) -> Bundle:
    """The model of a recipe, trained unless it is there."""
    if not (repository / recipe).is_dir():
        request = TrainingRequest(
            config=load_config(recipe), data=data, repository=repository, model=recipe
        )
        train_and_publish(request, new_display())
    models = Repository(repository)
    return read_bundle(models.path_of(recipe, models.resolve(recipe, None)))


def measure(config: TrainConfig, bundle: Bundle, options: argparse.Namespace) -> list[list[object]]:
    """All rows of the table."""
    data = prepare(config, options.data)
    asked = data.held_out if options.held_out or data.test is None else data.test
    queries_BD = bundle.encoder.encode(data.featurizer.transform(asked.queries))
    labels_LD = np.array(bundle.labels_LD)

    def row(name: str, index: LabelIndex, scored: float, train_s: float) -> list[object]:
        figures, microseconds = judge(index, queries_BD, asked, data)
        values = [round(figures[figure], 2) for figure in FIGURES]
        return [name, round(scored), *values, round(microseconds), round(train_s)]

    exact = build_index(ExactConfig(), labels_LD, seed=0)
    rows = [row("exact", exact, len(labels_LD), 0)]
    stages = list(timed_stages(config, bundle, data))
    num_clusters = stages[0][1].graph.num_clusters
    lists = build_index(IvfFlatConfig(nlist=num_clusters), labels_LD, seed=0)
    for nprobe in options.nprobe:
        lists.config = IvfFlatConfig(nlist=num_clusters, nprobe=nprobe)
        scored = mean_scored(lists, queries_BD, nprobe)
        rows.append(row(f"IVF nprobe {nprobe}", lists, scored, 0))
        for name, index, train_s in stages:
            shorter = with_shortlist(index, labels_LD, round(scored))
            rows.append(row(f"learned, {name}", shorter, scored, train_s))
    return rows


def timed_stages(
    config: TrainConfig, bundle: Bundle, data: TrainingData
) -> Iterator[tuple[str, LearnedIndex, float]]:
    """The index after each stage, and how long it took until then."""
    start = time.perf_counter()
    model = warm(config, bundle, data)
    indexes = train_in_stages(config, model, data.learned_from)
    for number, index in enumerate(indexes, start=1):
        yield f"stage {number}", index, time.perf_counter() - start


def warm(config: TrainConfig, bundle: Bundle, data: TrainingData) -> Model:
    """The model that the bundle has."""
    train = data.learned_from
    return warm_model(
        config,
        bundle,
        data.featurizer,
        train.features,
        train.positives,
        data.whole.labels,
        label_features=data.label_features,
    )


def with_shortlist(index: LearnedIndex, labels_LD: FloatArray, shortlist: int) -> LearnedIndex:
    """The index with another length of its shortlists."""
    config: LearnedConfig = index.config.model_copy(update={"shortlist": shortlist})
    return LearnedIndex.build(config, labels_LD, index.graph)


def mean_scored(lists: LabelIndex, queries_BD: FloatArray, nprobe: int) -> float:
    """Labels in the lists that a query looks into, on average."""
    inner = lists._index
    sizes_C = np.array([inner.invlists.list_size(i) for i in range(inner.nlist)])
    return float(sizes_C[inner.quantizer.search(queries_BD, nprobe)[1]].sum(axis=1).mean())


def judge(
    index: LabelIndex, queries_BD: FloatArray, asked: Dataset, data: TrainingData
) -> tuple[dict[str, float], float]:
    """Figures in per cent, and microseconds a query in batches of 64."""
    top = index.search(queries_BD, min(K, index.num_labels))
    evaluation = evaluate_path(
        top,
        asked,
        data.whole.labels.frequencies,
        len(data.whole),
        PropensityConfig(),
    )
    start = time.perf_counter()
    for block in blocks(queries_BD):
        index.search(block, K)
    asked_for = min(len(queries_BD), 20 * 64)
    return evaluation.figures, (time.perf_counter() - start) / asked_for * 1e6


def blocks(queries_BD: FloatArray) -> Iterator[FloatArray]:
    """Up to 20 batches of 64 queries."""
    for start in range(0, min(len(queries_BD), 20 * 64), 64):
        yield queries_BD[start : start + 64]


if __name__ == "__main__":
    main()
