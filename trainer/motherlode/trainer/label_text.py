"""What labels get from their texts: an encoder over the features of all texts.

Labels whose texts tell what they are need no query to be found by it, as in Siamese extreme
classification (Dahiya et al., SiameseXML, ICML 2021). A step costs what its labels' texts have in
features; nothing here is larger than the features of all texts, kept in compressed rows.

Shapes: L labels, M labels that a step touches, F features, N and R feature rows, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from motherlode.core.encoders import QueryEncoder
from motherlode.core.queries import SparseQueries
from motherlode.trainer.batches import take_features
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.device import CPU
from motherlode.trainer.optim import RowTable, join_rows

Rows = tuple[Tensor, Tensor]
"""int64 [N] rows of a table, and float32 [N, D], what they hold, which collects their gradient."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class GatheredLabels:
    """The labels of a step, and the rows that collect their gradients.

    Attributes:
        embeddings_MD: float32 [M, D], as they meet the queries.
        free: The free label rows among them, with their table.
        words: The feature rows that only label texts touch, with their table.
    """

    embeddings_MD: Tensor
    free: tuple[RowTable, Rows] | None = None
    words: tuple[RowTable, Rows] | None = None

    @property
    def leaves(self) -> list[Tensor]:
        """What collects gradients: float32 [N, D] each."""
        return [gathered[1][1] for gathered in (self.free, self.words) if gathered is not None]

    def step(self, labels_lr: float, features_lr: float) -> None:
        """Move free label rows, and feature rows of label texts alone, against their gradients."""
        for gathered, learning_rate in ((self.free, labels_lr), (self.words, features_lr)):
            if gathered is not None:
                table, rows = gathered
                table.step(*rows, learning_rate)


@final
class LabelText:
    """The text part of label embeddings. A text without a known feature gives zeros.

    Args:
        features: The texts of the L labels, featurised.
        encoder: Of texts: the queries' own or another.
        table: The feature rows of that encoder.
        is_shared: Whether both are those of the queries.
    """

    def __init__(
        self, features: SparseQueries, encoder: QueryEncoder, table: RowTable, *, is_shared: bool
    ) -> None:
        self.features = features
        self.encoder = encoder
        self.table = table
        self.is_shared = is_shared
        self._has_features_L = torch.from_numpy(features.indptr[1:] > features.indptr[:-1])

    def gather(self, labels_M: Tensor, queries: Rows) -> tuple[Tensor, Rows]:
        """The text part of some labels, and the feature rows that it touches alone.

        Args:
            labels_M: int64 [M], distinct.
            queries: Feature rows, ascending, that the queries of the step touch. A shared encoder
                uses them for the texts too, so that they collect the gradients of both; rows that
                it gathers besides are other ones, and no row is moved twice.

        Returns:
            float32 [M, D]; rows of `table`.
        """
        features = take_features(self.features, labels_M.numpy())
        assert isinstance(features, SparseQueries)
        known_N, known_ND = queries if self.is_shared else (labels_M.new_empty(0), None)
        rows_R, places = join_rows(known_N, torch.from_numpy(features.indices))
        new_rows = rows_R[len(known_N) :]
        new = self.table.gather(new_rows)
        table_RD = new if known_ND is None else torch.cat([known_ND, new])
        local = SparseQueries(features.indptr, places.numpy(), features.values, len(rows_R))
        embeddings_MD = self.encoder.head(self.encoder.project(local, table_RD))
        return self._zero_if_empty(embeddings_MD, self._has_features_L[labels_M]), (new_rows, new)

    @torch.no_grad()
    def embeddings(self, start: int, stop: int) -> Tensor:
        """The text part of labels start to stop, stop excluded, as it is now: float32 [M, D]."""
        features = self.features.rows(start, stop)
        projected_MD = self.encoder.project(features, self.table.weights_RD)
        if projected_MD.device == CPU:
            embeddings_MD = torch.from_numpy(self.encoder.head.embed(projected_MD.numpy()))
        else:
            embeddings_MD = self.encoder.head(projected_MD)
        return self._zero_if_empty(embeddings_MD, self._has_features_L[start:stop])

    def _zero_if_empty(self, embeddings_MD: Tensor, has_features_M: Tensor) -> Tensor:
        # A residual network makes something of nothing, whose direction would say nothing.
        if has_features_M.all():
            return embeddings_MD
        return embeddings_MD * has_features_M[:, None].to(embeddings_MD.device)


def has_own_text_encoder(config: TrainConfig) -> bool:
    """Whether label texts have an encoder that is not the queries'."""
    labels = config.labels
    return labels.embedding != "free" and labels.text_encoder == "own"
