"""The learned index against exact search and against FAISS IVF, at equal numbers of labels scored.

A model is trained by its recipe, or taken from a repository that has it, and its encoder and label
embeddings stay as they are: what differs is the index alone. IVF has as many lists as the learned
index has clusters; the learned index scores as many labels as IVF does on average at each nprobe.
All compare a query with each cluster besides. 100 hits are asked for, so that figures for fewer
labels than some 110 mean nothing: each index then looks further. The last nprobe is also shown by
how many training queries a label has, for the learned index learns from nothing else.

Where the recipe has sparse linear classifiers, a third table builds up what they add after exact
search and each stage, as table 3 of the paper does (Gupta et al., NeurIPS 2022): ranked by the
scores, by `labels.scale` times them plus the margins, and by the join fitted to held-out queries.

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
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import JOINED, SparseLinear
from motherlode.core.repository import Repository
from motherlode.core.topk import TopK
from motherlode.trainer.answers import answers
from motherlode.trainer.config import TrainConfig, load_config
from motherlode.trainer.evaluation import BUCKETS, Evaluation, PropensityConfig
from motherlode.trainer.learned_index.building import train_in_stages
from motherlode.trainer.model import Model
from motherlode.trainer.preparation import TrainingData, prepare
from motherlode.trainer.progress import new_display
from motherlode.trainer.publishing import evaluate_path
from motherlode.trainer.training import TrainingRequest, train_and_publish
from motherlode.trainer.warm_start import warm_model

FIGURES = ("R@100", "R@10", "P@1", "P@3", "P@5")
BUILD_UP = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@10", "R@100")
K = 100
SCORE = "score"


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
        bench = Bench(config, bundle, options)
        rows = bench.measure(options.nprobe)
        columns = ["index", "labels scored", *FIGURES, "us a query", "training s"]
        print_result(f"learned index: {options.recipe}", columns, rows)
        columns = ["index", *(names_of(*bucket) for bucket in BUCKETS)]
        name = f"R@10 by training queries of a label: {options.recipe}"
        print_result(name, columns, bench.by_frequency(options.nprobe[-1]))
        if isinstance(bundle.ranker, SparseLinear):
            columns = ["index", "ranked by", *BUILD_UP]
            print_result(f"build-up: {options.recipe}", columns, bench.build_up(bundle.ranker))


def trained_bundle(recipe: str, data: Path, repository: Path) -> Bundle:
    """The model of a recipe, trained unless it is there."""
    if not (repository / recipe).is_dir():
        request = TrainingRequest(
            config=load_config(recipe), data=data, repository=repository, model=recipe
        )
        train_and_publish(request, new_display())
    models = Repository(repository)
    return read_bundle(models.path_of(recipe, models.resolve(recipe, None)))


class Bench:
    """A model, what it is asked, and the learned index after each stage."""

    def __init__(self, config: TrainConfig, bundle: Bundle, options: argparse.Namespace) -> None:
        self._config, self._bundle = config, bundle
        self._data = prepare(config, options.data)
        use_held_out = options.held_out or self._data.test is None
        self._asked = self._data.held_out if use_held_out else self._data.test
        assert self._asked is not None
        self._features = self._data.featurizer.transform(self._asked.queries)
        self._queries_BD = bundle.encoder.encode(self._features)
        self._labels_LD = np.array(bundle.labels_LD)
        self._exact = build_index(ExactConfig(), self._labels_LD, seed=0)
        self._stages = list(timed_stages(config, bundle, self._data))
        self._num_clusters = self._stages[0][1].graph.num_clusters
        lists = IvfFlatConfig(nlist=self._num_clusters)
        self._lists = build_index(lists, self._labels_LD, seed=0)

    def measure(self, nprobes: list[int]) -> list[list[object]]:
        """The index alone, by labels scored."""
        rows = [self._row("exact", self._exact, len(self._labels_LD), 0)]
        for nprobe in nprobes:
            rows += [self._row(*compared) for compared in self._at(nprobe)]
        return rows

    def by_frequency(self, nprobe: int) -> list[list[object]]:
        """R@10 of labels by their training queries, which alone a learned index learns from."""
        k = min(K, len(self._labels_LD))
        rows: list[list[object]] = []
        for name, index in [("exact", self._exact), *(pair[:2] for pair in self._at(nprobe))]:
            buckets = self._evaluate(index.search(self._queries_BD, k)).buckets
            rows.append([name, *(round(bucket.recall, 2) for bucket in buckets)])
        return rows

    def _at(self, nprobe: int) -> Iterator[tuple[str, LabelIndex, float, float]]:
        """IVF and each stage, at the labels scored by the first, and seconds of training."""
        self._lists.config = IvfFlatConfig(nlist=self._num_clusters, nprobe=nprobe)
        scored = mean_scored(self._lists, self._queries_BD, nprobe)
        yield f"IVF nprobe {nprobe}", self._lists, scored, 0
        for name, index, train_s in self._stages:
            shorter = with_shortlist(index, self._labels_LD, round(scored))
            yield f"learned, {name}", shorter, scored, train_s

    def build_up(self, ranker: SparseLinear) -> list[list[object]]:
        """What the ranker adds to each index."""
        rankers = rankings(ranker, self._config.labels.scale)
        indexes: list[tuple[str, LabelIndex]] = [("exact", self._exact)]
        indexes += [(name, index) for name, index, _ in self._stages]
        rows: list[list[object]] = []
        for name, index in indexes:
            for what, stage in rankers.items():
                path = QueryPath(self._data.featurizer, self._bundle.encoder, index, stage)
                figures = self._evaluate(answers(path, self._features, K)).figures
                rows.append([name, what, *(round(figures[figure], 2) for figure in BUILD_UP)])
        return rows

    def _row(self, name: str, index: LabelIndex, scored: float, train_s: float) -> list[object]:
        figures = self._evaluate(index.search(self._queries_BD, min(K, index.num_labels))).figures
        values = [round(figures[figure], 2) for figure in FIGURES]
        microseconds = microseconds_of(index, self._queries_BD)
        return [name, round(scored), *values, round(microseconds), round(train_s)]

    def _evaluate(self, top: TopK) -> Evaluation:
        assert self._asked is not None
        whole = self._data.whole
        frequencies = whole.labels.frequencies
        return evaluate_path(top, self._asked, frequencies, len(whole), PropensityConfig())


def names_of(first: int, last: int | None) -> str:
    """A range of training queries."""
    return str(first) if first == last else f"{first} to {last}" if last else f"{first} or more"


def rankings(ranker: SparseLinear, scale: float) -> dict[str, SparseLinear | None]:
    """What hits are ranked by: the scores, `scale` times them plus the margins, the fitted join."""
    plain = (scale, 1.0, *[0.0] * (len(JOINED) - 2))
    unfitted = ranker.config.model_copy(update={"join": plain, "hidden": None, "neighbors": None})
    return {
        SCORE: None,
        "score and margin": ranker.with_config(unfitted),
        "fitted join": ranker,
    }


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


def microseconds_of(index: LabelIndex, queries_BD: FloatArray) -> float:
    """Of a query in batches of 64."""
    start = time.perf_counter()
    for block in blocks(queries_BD):
        index.search(block, K)
    return (time.perf_counter() - start) / min(len(queries_BD), 20 * 64) * 1e6


def blocks(queries_BD: FloatArray) -> Iterator[FloatArray]:
    """Up to 20 batches of 64 queries."""
    for start in range(0, min(len(queries_BD), 20 * 64), 64):
        yield queries_BD[start : start + 64]


if __name__ == "__main__":
    main()
