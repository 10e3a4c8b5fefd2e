"""A published model of made-up embeddings, for benchmarks of serving alone.

Its queries are embeddings; its index, unless told otherwise, is FAISS's HNSW with 32 neighbours and
`efSearch` 64.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from motherlode.core.bundle import BundleDraft
from motherlode.core.encoders import DenseEncoderConfig, HeadConfig, new_encoder
from motherlode.core.features import DenseFeaturesConfig, DenseFeaturizer
from motherlode.core.index import HnswConfig, IndexConfig, build_index
from motherlode.core.labels import LabelTable
from motherlode.core.queries import DenseQueries, FloatArray
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository

MODEL = "clustered"
NUM_LABELS, WIDTH = 100_000, 128
LABELS_OF_CENTRE = 100
# Of a label around its centre and of a query around its label.
SPREAD = 0.7
HNSW = HnswConfig(num_neighbors=32, ef_search=64)


def near(rng: np.random.Generator, points: FloatArray) -> FloatArray:
    """Points near the given ones, at length 1: float32 [B, D]."""
    width = points.shape[1]
    noise = SPREAD * rng.standard_normal(points.shape, np.float32) / np.sqrt(width)
    moved = points + noise.astype(np.float32)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1)
def made_up_labels(num_labels: int = NUM_LABELS) -> FloatArray:
    """Labels in clusters: float32 [L, D]."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_labels // LABELS_OF_CENTRE, WIDTH), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return near(rng, centres[rng.integers(0, len(centres), num_labels)])


def made_up_queries(number: int, num_labels: int = NUM_LABELS) -> FloatArray:
    """Queries near labels drawn at random: float32 [B, D]."""
    rng = np.random.default_rng(1)
    return near(rng, made_up_labels(num_labels)[rng.integers(0, num_labels, number)])


def publish(
    folder: Path,
    number: int = 1,
    *,
    num_labels: int = NUM_LABELS,
    config: IndexConfig = HNSW,
) -> Repository:
    """The repository in this folder, with at least so many versions of the model."""
    repository = Repository(folder)
    missing = number - len(repository.versions(MODEL))
    draft = _draft(num_labels, config) if missing > 0 else None
    for _ in range(missing):
        assert draft is not None
        repository.publish(MODEL, draft)
    return repository


def _draft(num_labels: int, index_config: IndexConfig) -> BundleDraft:
    labels_LD = made_up_labels(num_labels)
    featurizer = DenseFeaturizer(DenseFeaturesConfig(), WIDTH)
    config = DenseEncoderConfig(width=WIDTH, head=HeadConfig(normalize=False))
    encoder = new_encoder(config, torch.eye(WIDTH), torch.Generator().manual_seed(0))
    index = build_index(index_config, labels_LD, seed=0)
    queries = DenseQueries(made_up_queries(8, num_labels))
    golden = QueryPath(featurizer, encoder, index).take_golden(queries, 10)
    return BundleDraft(
        featurizer=featurizer,
        encoder=encoder,
        labels=LabelTable([f"label {i}" for i in range(num_labels)], None, np.ones(num_labels)),
        labels_LD=labels_LD,
        index=index,
        golden=golden,
        evaluation={},
        report_html=None,
        index_recall={},
        score_meaning="inner product of query and label",
        config={},
        config_digest="0" * 64,
        data_digest="0" * 64,
        parents={},
    )
