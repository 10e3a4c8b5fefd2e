"""Publishes a model of made-up labels that texts find, for benchmarks that care for time alone.

Usage: python benchmarks/made_up.py REPOSITORY MODEL [--labels 50000] [--ef-search N | --exact]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from motherlode.core.index import ExactConfig, HnswConfig, build_index
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository

# The model is the tests' own, larger.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.support.bundles import tiny_draft

WIDTH = 128
NUM_NEIGHBORS, EF_CONSTRUCTION = 16, 40
# What an exact index reaches on directions that have nothing in common is out of a graph's reach.
RECALL = {"R@10": 0.25}


def main() -> None:
    """Publish it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--labels", type=int, default=50_000)
    parser.add_argument("--ef-search", type=int, default=64)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    config = (
        ExactConfig()
        if options.exact
        else HnswConfig(
            num_neighbors=NUM_NEIGHBORS,
            ef_construction=EF_CONSTRUCTION,
            ef_search=options.ef_search,
        )
    )
    draft = tiny_draft(0, options.labels, "exact", width=WIDTH)
    index = build_index(config, draft.index.labels.labels_LD, seed=0)
    path = QueryPath(draft.featurizer, draft.encoder, index)
    golden = path.take_golden(draft.golden.queries, draft.golden.k)
    recall = {"R@10": 1.0} if options.exact else RECALL
    draft = replace(draft, index=index, golden=golden, index_recall=recall)
    print(Repository(options.repository).publish(options.model, draft))


if __name__ == "__main__":
    main()
