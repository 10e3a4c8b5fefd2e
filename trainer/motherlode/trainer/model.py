"""What a run learns: feature rows, the head, label rows.

Shapes: F features, L labels, D embedding width, N rows.
"""

from __future__ import annotations

import math
import os
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.core.encoders import QueryEncoder, encoder_from_state, new_encoder
from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, Features, FloatArray
from motherlode.core.records.messages import Words
from motherlode.trainer.batches import chunks, row_of_each
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.optim import RowTable


@final
class Model:
    """The learned state of a run.

    Attributes:
        encoder: Maps features to embeddings; its table is `features.weights_RD`.
        features: Feature rows with their optimiser state.
        labels: Label rows with their optimiser state, not normalised.
    """

    def __init__(
        self, encoder: QueryEncoder, labels: RowTable, features: RowTable, *, normalize: bool
    ) -> None:
        self.encoder = encoder
        self.labels = labels
        self.features = features
        self._normalize = normalize

    def normalized(self, rows_ND: Tensor) -> Tensor:
        """Label rows as they meet the queries: float32 [N, D]."""
        return F.normalize(rows_ND, dim=1) if self._normalize else rows_ND

    @torch.no_grad()
    def label_embeddings(self) -> FloatArray:
        """All label embeddings, as published: float32 [L, D]."""
        embeddings: FloatArray = self.normalized(self.labels.weights_RD).numpy()
        return embeddings

    def frozen_encoder(self) -> QueryEncoder:
        """The encoder as it is now, without gradients, over the same memory."""
        state = {name: value.detach() for name, value in self.encoder.state().items()}
        return encoder_from_state(self.encoder.config.model_dump(), state)


def new_model(
    config: TrainConfig, features: Features, positives: PositiveRows, num_labels: int
) -> Model:
    """A fresh model; each label starts at the mean of its queries' embeddings.

    The random feature table keeps inner products of queries (Johnson-Lindenstrauss), so that
    start is already a nearest-centroid retriever; labels without a query start at random.

    Raises:
        InvalidInputError: If it would need more memory than this machine has.
    """
    generator = torch.Generator().manual_seed(config.seed)
    width = config.encoder.width
    num_features = feature_width(features)
    _check_memory(config, num_features, num_labels)
    table_FD = torch.randn(num_features, width, generator=generator).mul_(1 / math.sqrt(width))
    encoder = new_encoder(config.encoder, table_FD, generator)
    labels_LD = torch.randn(num_labels, width, generator=generator).mul_(1 / math.sqrt(width))
    model = Model(
        encoder, RowTable(labels_LD), RowTable(table_FD), normalize=config.labels.normalize
    )
    start_at_centroids(model, features, positives, torch.ones(num_labels, dtype=torch.bool))
    return model


def _check_memory(config: TrainConfig, num_features: int, num_labels: int) -> None:
    width, hidden = config.encoder.width, config.encoder.head.hidden
    # Each row has one number of its optimiser, each weight of the head two, and a gradient.
    num_values = (num_features + num_labels) * (width + 1) + 4 * (2 * width + 1) * hidden
    wanted, memory = 4 * num_values, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory:
        sizes = f"{num_features:,} features, {num_labels:,} labels, width {width:,}"
        actual = f"{wanted:,} for {sizes}, {hidden:,} hidden units"
        expected = f"at most the {memory:,} bytes of this machine's memory"
        raise InvalidInputError("size of the model", expected=expected, actual=Words(actual))


def feature_width(features: Features) -> int:
    """F, the number of features of a batch."""
    if isinstance(features, DenseQueries):
        return int(features.features_BF.shape[1])
    return features.num_features


@torch.no_grad()
def start_at_centroids(
    model: Model, features: Features, positives: PositiveRows, chosen_L: Tensor
) -> None:
    """Set chosen label rows to the normalised mean embedding of their queries.

    Args:
        model: Changed in place.
        features: All training queries.
        positives: Their labels.
        chosen_L: bool [L]; other rows, and labels without a query, stay as they are.
    """
    encoder = model.frozen_encoder()
    sums_LD = torch.zeros_like(model.labels.weights_RD)
    for start, part in chunks(features, 4096):
        embeddings_BD = torch.from_numpy(encoder.encode(part))
        part_positives = positives.rows(np.arange(start, start + len(part)))
        rows_P = torch.from_numpy(row_of_each(part_positives))
        sums_LD.index_add_(0, torch.from_numpy(part_positives.indices), embeddings_BD[rows_P])
    found_L = chosen_L & sums_LD.any(dim=1)
    model.labels.weights_RD[found_L] = F.normalize(sums_LD[found_L], dim=1)
