"""One stage of a learned index's training: steps over the training queries.

Shapes: B queries of a batch, C clusters, W places of a row of A, K labels of a shortlist, P
positives, L labels, D embedding width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from motherlode.core.errors import MotherlodeError
from motherlode.core.index import ClusterGraph, LearnedConfig
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.learned_index.adjacency import Adjacency
from motherlode.trainer.learned_index.config import LearnedIndexConfig
from motherlode.trainer.learned_index.losses import search_loss, shortlist_loss
from motherlode.trainer.learned_index.moving_model import EncodedQueries, MovingModel
from motherlode.trainer.learned_index.paths import (
    LabelEdges,
    ShortlistPaths,
    cluster_shares,
    find_shortlist,
    positive_scores,
    training_clusters,
)
from motherlode.trainer.negatives import Batch
from motherlode.trainer.optim import RowTable, learning_rate_factor
from motherlode.trainer.seeds import new_generator

_WARMUP = 0.05
_CALIBRATION_LR = 0.05


@final
@dataclass(frozen=True, slots=True, eq=False)
class IndexState:
    """What the stages learn beside the model.

    Attributes:
        clusters: w_c, [C, D].
        adjacency: A.
        beta: Of eq. (5).
        calibration: float32 [2], factor and offset that make an inner product a logit; the losses
            that come before know no offset.
    """

    clusters: RowTable
    adjacency: Adjacency
    beta: float
    calibration: Tensor

    def graph(self) -> ClusterGraph:
        """What an index is made of, with arrays of its own."""
        return self.adjacency.graph(self.clusters.weights_RD.numpy().copy(), self.beta)


@final
class Stage:
    """Trains clusters, and edges where they are learned, in place.

    Args:
        index: Settings of the search.
        settings: Of the stages.
        model: Embeddings of queries and labels.
        state: Changed in place.
        source: Batches of training queries.
        num_labels: L.
        epochs: Times that each query is seen.
        learns_edges: Whether A moves: not in stage 1.
        seed: Two numbers, of the run and of the stage.
    """

    def __init__(  # noqa: PLR0913 - what a stage is made of
        self,
        index: LearnedConfig,
        settings: LearnedIndexConfig,
        model: MovingModel,
        state: IndexState,
        source: BatchSource,
        num_labels: int,
        *,
        epochs: float,
        learns_edges: bool,
        seed: tuple[int, int],
    ) -> None:
        self._index = index
        self._settings = settings
        self._model = model
        self._state = state
        self._source = source
        self._num_labels = num_labels
        self._learns_edges = learns_edges
        self._seed = seed
        self.num_steps = max(1, round(epochs * source.steps_per_epoch))
        self._all_clusters = torch.arange(len(state.clusters.weights_RD))
        self._label_edges = LabelEdges(state.adjacency.labels_CW, num_labels)
        self._calibration = state.calibration.requires_grad_()
        self._optimizer = torch.optim.Adam([self._calibration], lr=_CALIBRATION_LR)

    def run(self) -> float:
        """Train to the end.

        Returns:
            Mean loss of a step.

        Raises:
            MotherlodeError: If the training diverges.
        """
        total = 0.0
        for step in range(self.num_steps):
            if step % self._source.steps_per_epoch == 0:
                self._parents_L = self._state.adjacency.parents(self._num_labels)
            loss = self.step(step)
            if not math.isfinite(loss):
                raise MotherlodeError(
                    f"the learned index diverged: the loss of step {step + 1} is {loss}; lower "
                    "learned_index.clusters_lr or edges_lr"
                )
            total += loss
        return total / self.num_steps

    def step(self, step: int) -> float:
        """The loss of a batch; what is learned has moved."""
        state, batch = self._state, self._source.batch(step)
        generator = new_generator(*self._seed, step)
        queries = self._model.encode(batch.features, generator)
        clusters_CD = state.clusters.gather(self._all_clusters)
        logits_CW = state.adjacency.logits.gather(self._all_clusters)
        dropped_BD = dropped(queries.embeddings_BD, self._settings.dropout, generator)
        shares_BC = cluster_shares(dropped_BD, clusters_CD)
        weights_CW = state.adjacency.weights(state.beta, logits_CW)
        loss = self._loss(batch, queries, shares_BC, weights_CW)
        loss.backward()  # type: ignore[no-untyped-call]
        self._move(step, queries, clusters_CD, logits_CW)
        return loss.item()

    def _loss(
        self, batch: Batch, queries: EncodedQueries, shares_BC: Tensor, weights_CW: Tensor
    ) -> Tensor:
        paths = self._shortlist(batch, shares_BC.detach(), weights_CW.detach())
        scores_BC = shares_BC.mul(self._index.alpha).clamp(max=1.0)
        factor, offset = self._calibration
        judged = shortlist_loss(
            self._model.score(queries, paths.labels_BK) * factor + offset,
            paths.scores(scores_BC, weights_CW),
            are_positives(paths.labels_BK, batch, self._num_labels),
            paths.is_there_BK,
        )
        pairs = self._label_edges.of(batch.positives_P.numpy())
        found_P = positive_scores(pairs, batch.rows_P, scores_BC, weights_CW)
        return judged + self._settings.search_weight * search_loss(found_P, len(scores_BC))

    def _shortlist(self, batch: Batch, shares_BC: Tensor, weights_CW: Tensor) -> ShortlistPaths:
        parents_P = self._parents_L[batch.positives_P.numpy()]
        clusters_BJ = training_clusters(
            shares_BC.numpy(), parents_P, batch.rows_P.numpy(), self._index.beam
        )
        scores_BC = shares_BC.mul(self._index.alpha).clamp(max=1.0)
        return find_shortlist(
            self._state.adjacency,
            weights_CW.numpy(),
            np.take_along_axis(scores_BC.numpy(), clusters_BJ, axis=1),
            clusters_BJ,
            self._settings.shortlist,
        )

    def _move(
        self, step: int, queries: EncodedQueries, clusters_CD: Tensor, logits_CW: Tensor
    ) -> None:
        settings, everything = self._settings, self._all_clusters
        factor = learning_rate_factor(step, self.num_steps, _WARMUP)
        self._state.clusters.step(everything, clusters_CD, settings.clusters_lr * factor)
        if self._learns_edges:
            logits = self._state.adjacency.logits
            logits.step(everything, logits_CW, settings.edges_lr * factor)
        self._model.step(queries, factor)
        self._optimizer.step()
        self._optimizer.zero_grad()


def dropped(queries_BD: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Dropout of single values: float32 [B, D]. Clusters look at directions, not at lengths."""
    if not rate:
        return queries_BD
    return queries_BD * torch.empty_like(queries_BD).bernoulli_(1 - rate, generator=generator)


def are_positives(labels_BK: Tensor, batch: Batch, num_labels: int) -> Tensor:
    """Which labels of a shortlist are positives of their query: bool [B, K].

    Args:
        labels_BK: int64 [B, K].
        batch: Its positives ascend within a query.
        num_labels: L.
    """
    keys_P = batch.rows_P * num_labels + batch.positives_P
    keys_BK = torch.arange(len(labels_BK))[:, None] * num_labels + labels_BK
    places_BK = torch.searchsorted(keys_P, keys_BK).clamp(max=len(keys_P) - 1)
    return keys_P[places_BK] == keys_BK
