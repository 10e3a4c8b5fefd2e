"""An index of each family and each code, for tests of what all of them promise."""

from __future__ import annotations

from dataclasses import dataclass

from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LabelIndex,
    LearnedConfig,
    ScanConfig,
)
from motherlode.core.queries import FloatArray
from motherlode.core.topk import TopK
from tests.support.embeddings import clustered
from tests.support.learned_index import build_any_index as build_index

# Small enough that approximate indexes do not turn to an exact scan.
CONFIGS: list[IndexConfig] = [
    ExactConfig(),
    IvfFlatConfig(nlist=25, nprobe=5),
    HnswConfig(num_neighbors=4, ef_construction=40, ef_search=16),
    HnswConfig(num_neighbors=4, ef_construction=40, ef_search=16, codes="sq8"),
    HnswConfig(num_neighbors=4, ef_construction=40, ef_search=16, codes="fp16"),
    ScanConfig(codes="sq8"),
    ScanConfig(codes="fp16"),
    ScanConfig(codes="pq_fast_scan"),
    ScanConfig(codes="rabitq"),
    IvfConfig(nlist=25, nprobe=5, codes="sq8"),
    IvfConfig(nlist=25, nprobe=5, codes="fp16"),
    IvfConfig(nlist=25, nprobe=5, codes="pq"),
    IvfConfig(nlist=25, nprobe=5, codes="pq_fast_scan"),
    IvfConfig(nlist=25, nprobe=5, codes="rabitq"),
    LearnedConfig(num_clusters=25, beam=5, shortlist=150),
]
NUM_LABELS, WIDTH, NUM_QUERIES = 900, 24, 64


def name_of(config: IndexConfig) -> str:
    """Family and codes."""
    return " ".join([config.kind, getattr(config, "codes", "")]).strip()


@dataclass(frozen=True)
class Case:
    """An index with its labels, and queries."""

    index: LabelIndex
    labels_LD: FloatArray
    queries_BD: FloatArray


def make_case(config: IndexConfig, spread: float) -> Case:
    """An index of labels whose lengths spread so much."""
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=spread)
    index = build_index(config, labels_LD, seed=3)
    return Case(index, labels_LD, queries_BD[:NUM_QUERIES])


CASES = {
    f"{name_of(config)}-{name}": make_case(config, spread)
    for config in CONFIGS
    for name, spread in (("even", 0.0), ("uneven", 0.6))
}


def rows_of(top: TopK) -> list[tuple[list[int], bytes]]:
    """Labels, and the bits of the scores, of each query."""
    return [(top.row(i)[0].tolist(), top.row(i)[1].tobytes()) for i in range(len(top))]
