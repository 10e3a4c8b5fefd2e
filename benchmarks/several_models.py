"""Several models of one data set together, as ELIAS++ is: the last line of the paper's build-up.

Each model (of another seed, say) gives its 100 best labels, and the scores of a label are added up
(Gupta et al., NeurIPS 2022, table 3). What is added is a label's share of the model's 100, by a
softmax of its scores; a label that a model lacks has none. So nothing depends on a constant that a
model adds to all scores of a query, as the fitted join does, and a label that only some indexes
find loses little.

The models are asked with the index that they were published with and with exact search, and ranked
by the scores, by scores and margins, and by the fitted join where they have classifiers.

Usage: python benchmarks/several_models.py REPOSITORY FOLDER MODEL[@VERSION] ...
       (the folder holds train and test)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from learned_index import BUILD_UP, SCORE, K, rankings
from machine import print_result

from motherlode.core.index import set_index_threads
from motherlode.core.queries import IntArray
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import SparseLinear
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK, top_k_of_candidates
from motherlode.trainer.answers import answers
from motherlode.trainer.config import check_config
from motherlode.trainer.data import load_dataset
from motherlode.trainer.evaluation import PropensityConfig
from motherlode.trainer.preparation import load_test
from motherlode.trainer.publishing import evaluate_path

Figures = Callable[[TopK], list[float]]


def main() -> None:
    """Ask all of them, alone and together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("models", nargs="+", metavar="MODEL[@VERSION]")
    options = parser.parse_args()
    set_index_threads(1)
    repository = Repository(options.repository)
    retrievers = [Retriever.load(repository, *parse_model_ref(name)) for name in options.models]
    check_alike(retrievers)
    train = load_dataset(options.data, "train")
    test = load_test(options.data, train)
    assert test is not None, "nothing to ask"

    def figures(top: TopK) -> list[float]:
        found = evaluate_path(top, test, train.labels.frequencies, len(train), PropensityConfig())
        return [round(found.figures[name], 2) for name in BUILD_UP]

    rows: list[list[object]] = []
    for index, ranked_by, paths in ways(retrievers):
        tops = [answers(path, test.queries, K) for path in paths]
        rows += [
            [index, ranked_by, name, *figures(top)]
            for name, top in zip(options.models, tops, strict=True)
        ]
        scales = [scale_of(r) if ranked_by == SCORE else 1.0 for r in retrievers]
        together = merged(tops, scales, len(train.labels))
        rows.append([index, ranked_by, f"all {len(tops)}", *figures(together)])
    columns = ["index", "ranked by", "model", *BUILD_UP]
    print_result(f"several models: {options.data.name}", columns, rows)


def check_alike(retrievers: list[Retriever]) -> None:
    """Rows of their label tables must mean the same."""
    digests = {retriever.manifest.data_digest for retriever in retrievers}
    assert len(digests) == 1, f"models of several data sets: {sorted(digests)}"


def ways(retrievers: list[Retriever]) -> Iterator[tuple[str, str, list[QueryPath]]]:
    """Index, ranking, and the path of each model."""
    paths = [retriever.path for retriever in retrievers]
    indexes = {"exact": [path.exact() for path in paths]}
    kinds = {path.index.kind for path in paths}
    if kinds != {"exact"}:
        indexes[" and ".join(sorted(kinds))] = paths
    for name, searched in indexes.items():
        ranked = [rankings_of(*pair) for pair in zip(retrievers, searched, strict=True)]
        for ranking in ranked[0]:
            yield name, ranking, [of_model[ranking] for of_model in ranked]


def rankings_of(retriever: Retriever, path: QueryPath) -> dict[str, QueryPath]:
    """The path with each ranker."""
    parts = path.featurizer, path.encoder, path.index
    if not isinstance(path.ranker, SparseLinear):
        return {SCORE: QueryPath(*parts)}
    named = rankings(path.ranker, scale_of(retriever))
    return {name: QueryPath(*parts, ranker) for name, ranker in named.items()}


def scale_of(retriever: Retriever) -> float:
    """What makes a logit of a score of the index."""
    return check_config(retriever.manifest.config).labels.scale


def merged(tops: list[TopK], scales: list[float], num_labels: int) -> TopK:
    """The labels with the largest sums of shares.

    Args:
        tops: Answers of each model to the same queries.
        scales: What makes logits of the scores of each.
        num_labels: L.
    """
    pairs = np.concatenate([pairs_of(top, num_labels) for top in tops])
    shares = np.concatenate([shares_of(*pair) for pair in zip(tops, scales, strict=True)])
    distinct, places = np.unique(pairs, return_inverse=True)
    sums = np.bincount(places, shares).astype(np.float32)
    counts_B = np.bincount(distinct // num_labels, minlength=len(tops[0]))
    valid_BC = np.arange(counts_B.max()) < counts_B[:, None]
    labels_BC, scores_BC = np.zeros(valid_BC.shape, np.int64), np.zeros(valid_BC.shape, np.float32)
    labels_BC[valid_BC], scores_BC[valid_BC] = distinct % num_labels, sums
    return top_k_of_candidates(labels_BC, scores_BC, valid_BC, K)


def pairs_of(top: TopK, num_labels: int) -> IntArray:
    """int64 [N]: a number for each pair of query and label."""
    pairs: IntArray = queries_of(top) * num_labels + top.labels
    return pairs


def shares_of(top: TopK, scale: float) -> np.ndarray:
    """float64 [N]: the softmax of each query's scores, times the scale."""
    queries_N, has_hits_B = queries_of(top), top.counts > 0
    best_N = np.repeat(top.scores[top.offsets[:-1][has_hits_B]], top.counts[has_hits_B])
    odds_N = np.exp(scale * (top.scores - best_N).astype(np.float64))
    return odds_N / np.bincount(queries_N, odds_N, minlength=len(top))[queries_N]


def queries_of(top: TopK) -> IntArray:
    """int64 [N]: the query of each hit."""
    return np.repeat(np.arange(len(top)), top.counts)


if __name__ == "__main__":
    main()
