"""The sparse linear ranker of a published model: what it costs to fit, and a query to rank.

Usage: python benchmarks/ranker.py REPOSITORY MODEL FOLDER   (a folder holds train and test)

It is fitted anew to the training queries, with the settings of the model's run. Times of a query
are those of the stage alone, for the 100 best hits of the index.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from machine import print_result

from motherlode.core.queries import SparseQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.rankers import SparseLinear
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.trainer.answers import answers
from motherlode.trainer.classifiers import fit_classifiers
from motherlode.trainer.config import check_config
from motherlode.trainer.data import load_dataset
from motherlode.trainer.preparation import load_test
from motherlode.trainer.ranker import SparseRankerConfig

HITS = 100
QUERIES = 2048
BATCHES = (1, 64)


def main() -> None:
    """Fit and rank."""
    repository, model, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    retriever = Retriever.load(Repository(repository), *parse_model_ref(model))
    path, config = retriever.path, check_config(retriever.manifest.config)
    assert isinstance(path.ranker, SparseLinear)
    assert isinstance(config.ranker, SparseRankerConfig)
    train = load_dataset(folder, "train")
    test = load_test(folder, train)
    assert test is not None
    alone = QueryPath(path.featurizer, path.encoder, path.index)
    features = path.featurizer.transform(train.queries)
    assert isinstance(features, SparseQueries)
    started = time.perf_counter()
    hits = answers(alone, features, config.ranker.negatives)
    searched = time.perf_counter()
    weights = fit_classifiers(config.ranker, features, train.positives, hits, len(retriever.labels))
    fitted = time.perf_counter()
    rows: list[list[object]] = [
        ["hits of training queries, s", round(searched - started, 1)],
        ["classifiers, s", round(fitted - searched, 1)],
        ["weights, a label", round(len(weights.keys_W) / weights.num_labels, 1)],
        ["size, MB", round(weights.nbytes / 1e6, 1)],
    ]
    queries = path.featurizer.transform(test.queries.rows(0, QUERIES))
    assert isinstance(queries, SparseQueries)
    for batch in BATCHES:
        times = rank_times(path.ranker, alone, queries, batch)
        rows.append([f"ranking, ms a query in batches of {batch}", np.round(np.median(times), 3)])
    print_result(f"ranker of {model}", ["", ""], rows)


def rank_times(
    ranker: SparseLinear, alone: QueryPath, queries: SparseQueries, batch: int
) -> list[float]:
    """Milliseconds a query, of each batch."""
    times = []
    for start in range(0, len(queries), batch):
        part = queries.rows(start, min(start + batch, len(queries)))
        shortlist, embeddings = alone.top_k(part, HITS), alone.encode(part)
        started = time.perf_counter()
        ranker.rank(shortlist, part, embeddings, 10)
        times.append(1e3 * (time.perf_counter() - started) / len(part))
    return times


if __name__ == "__main__":
    main()
