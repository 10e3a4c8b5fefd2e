"""The model as a stage sees it: as it is, or moving along.

Shapes: B queries, K labels of a shortlist, M distinct labels, L labels, N feature rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.core.queries import Features
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.label_text import GatheredLabels, Rows
from motherlode.trainer.model import Model
from motherlode.trainer.step import touched


@final
@dataclass(frozen=True, slots=True, eq=False)
class EncodedQueries:
    """The queries of a step.

    Attributes:
        embeddings_BD: float32 [B, D].
        rows: Feature rows that collect their gradients; None where the encoder stays.
    """

    embeddings_BD: Tensor
    rows: Rows | None


@final
class MovingModel:
    """Gives embeddings of queries and labels, and moves what made them where that is wanted.

    Args:
        model: Changed in place where `learned_index.train_encoder` or `train_labels` says so.
        config: Of the run.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self._model = model
        self._config = config
        self._settings = config.learned_index
        self._encoder = model.frozen_encoder()
        self._labels_LD = None
        if not self._settings.train_labels:
            self._labels_LD = torch.from_numpy(model.label_embeddings())
        self._gathered: GatheredLabels | None = None
        parameters = list(model.encoder.head.parameters()) if self._settings.train_encoder else []
        self._optimizer = None
        if parameters:
            self._optimizer = torch.optim.AdamW(
                parameters, weight_decay=config.optimizer.weight_decay
            )

    def encode(self, features: Features, generator: torch.Generator) -> EncodedQueries:
        """The embeddings of a batch, with gradients where the encoder moves."""
        if not self._settings.train_encoder:
            return EncodedQueries(torch.from_numpy(self._encoder.encode(features)), None)
        encoder = self._model.encoder
        local, rows_N = touched(features)
        table_ND = self._model.features.gather(rows_N)
        projected_BD = encoder.head.drop(encoder.project(local, table_ND), generator)
        return EncodedQueries(encoder.head(projected_BD), (rows_N, table_ND))

    def score(self, queries: EncodedQueries, labels_BK: Tensor) -> Tensor:
        """Inner products of queries with labels: float32 [B, K].

        Args:
            queries: From `encode`.
            labels_BK: int64 [B, K].
        """
        if self._labels_LD is not None:
            labels_BKD = F.embedding(labels_BK, self._labels_LD)
        else:
            labels_M, places_BK = torch.unique(labels_BK, return_inverse=True)
            nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, 0)
            self._gathered = self._model.gather_labels(labels_M, queries.rows or nothing)
            labels_BKD = F.embedding(places_BK, self._gathered.embeddings_MD)
        return torch.bmm(labels_BKD, queries.embeddings_BD[:, :, None]).squeeze(2)

    def step(self, queries: EncodedQueries, factor: float) -> None:
        """Move what the last batch was made of against its gradients.

        Args:
            queries: From `encode`.
            factor: On all learning rates.
        """
        rates = self._config.optimizer
        factor *= self._settings.lr_factor
        if queries.rows is not None:
            self._model.features.step(*queries.rows, rates.features_lr * factor)
        if self._gathered is not None:
            self._gathered.step(rates.labels_lr * factor, rates.features_lr * factor)
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = rates.head_lr * factor
            self._optimizer.step()
            self._optimizer.zero_grad()
