"""Finding the labels with the highest inner products."""

from motherlode.core.index.cluster_graph import ClusterGraph
from motherlode.core.index.coded import IvfIndex, ScanIndex
from motherlode.core.index.config import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LearnedConfig,
    ScanConfig,
)
from motherlode.core.index.faiss import limit_index_threads, set_index_threads
from motherlode.core.index.families import (
    ExactIndex,
    HnswIndex,
    IvfFlatIndex,
    build_index,
    load_index,
    measure_recall,
)
from motherlode.core.index.filter import LabelFilter
from motherlode.core.index.index import LabelIndex
from motherlode.core.index.learned import LearnedIndex

__all__ = [
    "ClusterGraph",
    "ExactConfig",
    "ExactIndex",
    "HnswConfig",
    "HnswIndex",
    "IndexConfig",
    "IvfConfig",
    "IvfFlatConfig",
    "IvfFlatIndex",
    "IvfIndex",
    "LabelFilter",
    "LabelIndex",
    "LearnedConfig",
    "LearnedIndex",
    "ScanConfig",
    "ScanIndex",
    "build_index",
    "limit_index_threads",
    "load_index",
    "measure_recall",
    "set_index_threads",
]
