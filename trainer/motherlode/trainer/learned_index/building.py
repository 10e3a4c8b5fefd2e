"""The whole training of a learned index: clusters, stage 1, stage 2 (ELIAS, section 4.3).

Unlike the paper's, the stages begin where the training of the model ended: with its encoder and its
label embeddings, which by default stay as they are.

Shapes: B training queries, L labels, C clusters, J clusters of a beam, D embedding width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from motherlode.core.encoders import QueryEncoder
from motherlode.core.index import LearnedConfig, LearnedIndex
from motherlode.core.index.paths import look_into, unit_queries
from motherlode.core.queries import Features, FloatArray, IntArray
from motherlode.trainer.batches import BatchSource, chunks
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.learned_index.adjacency import (
    balanced_adjacency,
    learned_adjacency,
)
from motherlode.trainer.learned_index.centroids import label_centroids
from motherlode.trainer.learned_index.clustering import balanced_clusters
from motherlode.trainer.learned_index.config import Sizes, index_sizes
from motherlode.trainer.learned_index.moving_model import MovingModel
from motherlode.trainer.learned_index.stage import IndexState, Stage
from motherlode.trainer.loop import LabelledFeatures
from motherlode.trainer.model import Model
from motherlode.trainer.optim import RowTable

_CHUNK = 1024
# Apart from the steps of the model, whose generators have the seed and a step.
_SEED = 2**40

logger = logging.getLogger(__name__)


def train_learned_index(config: TrainConfig, model: Model, train: LabelledFeatures) -> LearnedIndex:
    """A learned index over the labels of a trained model.

    Args:
        config: Of the run; `index.kind` is "learned".
        model: Changed in place where `learned_index.train_encoder` or `train_labels` says so.
        train: What the model learned from.

    Raises:
        ConfigError: If the sizes of the index do not fit the labels.
        MotherlodeError: If the training diverges.
    """
    *_, last = train_in_stages(config, model, train)
    return last


def train_in_stages(
    config: TrainConfig, model: Model, train: LabelledFeatures
) -> Iterator[LearnedIndex]:
    """The index after each stage, when that is done; see `train_learned_index`."""
    assert isinstance(config.index, LearnedConfig)
    sizes = index_sizes(config.index, config.learned_index, model.num_labels)
    resolved = sizes.resolved(config.index)
    config = config.model_copy(update={"index": resolved})
    generator = np.random.default_rng([config.seed, _SEED])
    clusters_L = _clusters(sizes, model, train, generator)
    state = _first_state(config, sizes, model.label_embeddings(), clusters_L)
    _run_stage(1, config, model, train, state)
    yield LearnedIndex.build(resolved, model.label_embeddings(), state.graph())
    if config.learned_index.stage2_epochs:
        assigned_BC = _assigned(
            resolved, model.frozen_encoder(), train.features, state.clusters.weights_RD.numpy()
        )
        adjacency = learned_adjacency(
            assigned_BC, train.positives, clusters_L, sizes.labels_per_cluster, generator
        )
        state = IndexState(
            RowTable(state.clusters.weights_RD), adjacency, sizes.beta, state.calibration.detach()
        )
        _run_stage(2, config, model, train, state)
        yield LearnedIndex.build(resolved, model.label_embeddings(), state.graph())


def _clusters(
    sizes: Sizes, model: Model, train: LabelledFeatures, generator: np.random.Generator
) -> IntArray:
    """int64 [L]: the balanced clusters of stage 1."""
    started = time.monotonic()
    centroids = label_centroids(
        model.frozen_encoder(), train.features, train.positives, model.label_embeddings()
    )
    clusters_L = balanced_clusters(centroids, sizes.num_clusters, generator)
    took_s = time.monotonic() - started
    logger.info("%s clusters of labels: %.0f s", f"{sizes.num_clusters:,}", took_s)
    return clusters_L


def _first_state(
    config: TrainConfig, sizes: Sizes, labels_LD: FloatArray, clusters_L: IntArray
) -> IndexState:
    """Clusters look where their labels lie, as sharply as labels do in the loss of the model."""
    sums_CD = np.zeros((sizes.num_clusters, labels_LD.shape[1]))
    np.add.at(sums_CD, clusters_L, unit_queries(labels_LD).astype(np.float64))
    scale = config.labels.scale
    clusters_CD = scale * unit_queries(sums_CD.astype(np.float32))
    return IndexState(
        RowTable(torch.from_numpy(clusters_CD)),
        balanced_adjacency(clusters_L, sizes.num_clusters),
        # All labels of a cluster are alike: whatever their share is, it becomes 1.
        2.0 * len(labels_LD),
        torch.tensor([scale, -scale / 2]),
    )


def _assigned(
    index: LearnedConfig, encoder: QueryEncoder, features: Features, clusters_CD: FloatArray
) -> Any:
    """M: csr_array of float32 [B, C], scores of the clusters in the beam of each query."""
    scores, clusters = [], []
    for _, part in chunks(features, _CHUNK):
        clusters_BJ, scores_BJ = look_into(
            unit_queries(encoder.encode(part)), clusters_CD, index.alpha, index.beam
        )
        scores.append(scores_BJ.ravel())
        clusters.append(clusters_BJ.ravel())
    indptr = np.arange(len(features) + 1) * index.beam
    shape = len(features), len(clusters_CD)
    return csr_array((np.concatenate(scores), np.concatenate(clusters), indptr), shape=shape)


def _run_stage(
    number: int, config: TrainConfig, model: Model, train: LabelledFeatures, state: IndexState
) -> None:
    assert isinstance(config.index, LearnedConfig)
    settings, started = config.learned_index, time.monotonic()
    source = BatchSource(train.features, train.positives, settings.batch_size, config.seed)
    stage = Stage(
        config.index,
        settings,
        MovingModel(model, config),
        state,
        source,
        model.num_labels,
        epochs=settings.stage1_epochs if number == 1 else settings.stage2_epochs,
        learns_edges=number > 1,
        seed=(config.seed, _SEED + number),
    )
    loss, took_s = stage.run(), time.monotonic() - started
    logger.info("stage %d of the index: mean loss %.3f, %.0f s", number, loss, took_s)
