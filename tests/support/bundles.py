"""Tiny bundles with planted answers, for tests of everything that needs a model.

Label i has the key `label{i}` and the text `topic{i}`; a query that holds the word `topic{i}`
finds label i first. `filler`, `more` and `other` are known and say nothing; others are unknown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from motherlode.core.bundle import BundleDraft
from motherlode.core.encoders import (
    BagEncoderConfig,
    DenseEncoderConfig,
    HeadConfig,
    QueryEncoder,
    new_encoder,
)
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    TextFeaturesConfig,
    TextFeaturizer,
)
from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LearnedConfig,
    ScanConfig,
)
from motherlode.core.labels import LabelTable
from motherlode.core.manifest import FileEntry, bundle_digest, read_manifest
from motherlode.core.queries import DenseQueries, FloatArray, TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository
from tests.support.learned_index import build_any_index
from tests.support.rankers import random_ranker

FILLERS = ("filler", "more", "other")
WIDTH = 16
SHORTLIST = 20

_INDEX_CONFIGS: dict[str, IndexConfig] = {
    "exact": ExactConfig(),
    "ivf_flat": IvfFlatConfig(nlist=4, nprobe=4),
    "hnsw": HnswConfig(num_neighbors=8, ef_construction=40, ef_search=64),
    "scan": ScanConfig(codes="rabitq"),
    "ivf": IvfConfig(nlist=4, nprobe=4),
    "learned": LearnedConfig(num_clusters=4, beam=4),
}


def tiny_draft(
    seed: int = 0,
    num_labels: int = 50,
    index_kind: str = "exact",
    *,
    width: int = WIDTH,
    normalize: bool = True,
    ranker_kind: str | None = None,
) -> BundleDraft:
    """A text model that finds label i for the word `topic{i}`; another seed gives other weights.

    A ranker changes scores and order, but for the first hit.
    """
    generator = np.random.default_rng(seed)
    labels_LD = _directions(generator, num_labels, width)
    labels = LabelTable(
        [f"label{i}" for i in range(num_labels)],
        [f"topic{i}" for i in range(num_labels)],
        generator.integers(0, 100, num_labels),
    )
    featurizer = _featurizer(num_labels)
    encoder = _encoder(featurizer, labels_LD, normalize=normalize)
    index = build_any_index(_INDEX_CONFIGS[index_kind], labels_LD, seed=seed)
    ranker = None
    if ranker_kind is not None:
        sizes = featurizer.num_features, num_labels
        ranker = random_ranker(ranker_kind, *sizes, width=width, shortlist=SHORTLIST, seed=seed)
    path = QueryPath(featurizer, encoder, index, ranker)
    golden_texts = [f"topic{i} filler" for i in range(min(8, num_labels))]
    return BundleDraft(
        featurizer=featurizer,
        encoder=encoder,
        labels=labels,
        labels_LD=labels_LD,
        index=index,
        golden=path.take_golden(TextQueries(golden_texts), min(5, num_labels)),
        evaluation={"figures": {"P@1": 100.0, "R@10": 100.0}, "num_queries": 8},
        report_html="<!doctype html><title>tiny</title>",
        index_recall={"R@10": 1.0},
        score_meaning="cosine of query and label",
        config={"seed": seed, "encoder": {"width": width}},
        config_digest=f"{seed:064x}",
        data_digest="d" * 64,
        parents={},
        ranker=ranker,
    )


def publish_tiny(
    repository_path: Path,
    model: str = "tiny",
    *,
    seed: int = 0,
    num_labels: int = 50,
    index_kind: str = "exact",
    keep: int | None = None,
    ranker_kind: str | None = None,
) -> int:
    """Publishes a tiny model and gives its version."""
    draft = tiny_draft(seed, num_labels, index_kind, ranker_kind=ranker_kind)
    return Repository(repository_path).publish(model, draft, keep=keep)


def publish_dense(repository_path: Path, model: str = "dense", *, num_features: int = 6) -> int:
    """Publishes a model that takes dense features, and gives its version."""
    draft = tiny_draft()
    featurizer = DenseFeaturizer(DenseFeaturesConfig(), num_features)
    table_FD = torch.eye(num_features, WIDTH)
    generator = torch.Generator().manual_seed(0)
    encoder = new_encoder(DenseEncoderConfig(width=WIDTH), table_FD, generator)
    queries = DenseQueries(np.eye(3, num_features, dtype=np.float32))
    golden = QueryPath(featurizer, encoder, draft.index).take_golden(queries, 5)
    dense = replace(draft, featurizer=featurizer, encoder=encoder, golden=golden)
    return Repository(repository_path).publish(model, dense)


def forge_manifest(folder: Path) -> None:
    """Makes the manifest agree with the files that lie in a bundle's folder now."""
    manifest = read_manifest(folder)
    files = {name: FileEntry.of(folder / name) for name in manifest.files}
    digest = bundle_digest(files, manifest.stages)
    manifest.model_copy(update={"files": files, "digest": digest}).save(folder)


def _directions(generator: np.random.Generator, num_labels: int, width: int) -> FloatArray:
    labels_LD = generator.standard_normal((num_labels, width)).astype(np.float32)
    labels_LD /= np.linalg.norm(labels_LD, axis=1, keepdims=True)
    return labels_LD


def _featurizer(num_labels: int) -> TextFeaturizer:
    texts = [f"topic{i} {' '.join(FILLERS)}" for i in range(num_labels)]
    return TextFeaturizer.fit(texts, TextFeaturesConfig(min_count=1))


def _encoder(featurizer: TextFeaturizer, labels_LD: FloatArray, *, normalize: bool) -> QueryEncoder:
    """Gives each topic word the embedding of its label, and the fillers none."""
    num_labels, width = labels_LD.shape
    row_of = {f"topic{i}": i for i in range(num_labels)}
    table_FD = torch.zeros(len(featurizer.vocabulary), width)
    for feature, word in enumerate(featurizer.vocabulary):
        if word in row_of:
            table_FD[feature] = torch.from_numpy(labels_LD[row_of[word]])
    config = BagEncoderConfig(width=width, head=HeadConfig(normalize=normalize))
    return new_encoder(config, table_FD, torch.Generator().manual_seed(0))
