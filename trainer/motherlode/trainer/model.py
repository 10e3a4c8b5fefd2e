"""What a run learns: feature rows, the head, label rows.

Shapes: F features, L labels, M labels that a step touches, D embedding width, N rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from motherlode.core.encoders import QueryEncoder, encoder_from_state, new_encoder
from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, Features, FloatArray, SparseQueries
from motherlode.core.records.messages import Words
from motherlode.trainer.batches import chunks, row_of_each
from motherlode.trainer.config import TrainConfig
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_text import (
    GatheredLabels,
    LabelText,
    Rows,
    has_own_text_encoder,
)
from motherlode.trainer.optim import RowTable
from motherlode.trainer.products import unit_rows
from motherlode.trainer.seeds import new_generator

# Length that a free row starts with where it is added to a text part of about length 1. Rows that
# start as long as that hide the texts, and labels without such a row lose to those that have one.
_START_BESIDE_TEXT = 0.1
# Labels whose embeddings are computed together.
_CHUNK = 65_536


@final
class Model:
    """The learned state of a run.

    A label's embedding, before normalisation, is its free row, what an encoder makes of its text,
    or the sum of both. In a sum, the free rows of labels without a training query never move, and
    are zeros unless a warm start gave them: such a label is only ever a negative, and would be
    pushed away from what its text says.

    Attributes:
        encoder: Maps features to embeddings; its table is `features.weights_RD`.
        features: Feature rows with their optimiser state.
        labels: Free label rows with their optimiser state, not normalised; None without them.
        text: What labels get from their texts; None for free rows alone.
        num_labels: L.

    Args:
        normalize: Whether labels meet the queries at length 1.
        is_seen_L: bool [L], labels with a training query; needed for a sum.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        labels: RowTable | None,
        features: RowTable,
        *,
        normalize: bool,
        text: LabelText | None = None,
        is_seen_L: Tensor | None = None,
    ) -> None:
        self.encoder = encoder
        self.labels = labels
        self.features = features
        self.text = text
        self._normalize = normalize
        self._is_seen_L = is_seen_L
        if text is not None:
            self.num_labels = len(text.features)
        else:
            assert labels is not None
            self.num_labels = len(labels.weights_RD)

    @property
    def device(self) -> torch.device:
        """Where its tables are."""
        return self.features.weights_RD.device

    def to(self, device: torch.device) -> None:
        """Moves tables and networks; back on the CPU they are in the memory that they were in."""
        for table in self.tables().values():
            table.to(device)
        for encoder in (self.encoder, *(() if self.text is None else (self.text.encoder,))):
            encoder.head.to(device)

    def tables(self) -> dict[str, RowTable]:
        """All tables of rows, by name; a shared one once."""
        tables = {"features": self.features}
        if self.labels is not None:
            tables["labels"] = self.labels
        if self.text is not None and not self.text.is_shared:
            tables["label_features"] = self.text.table
        return tables

    def normalized(self, rows_ND: Tensor) -> Tensor:
        """Label rows as they meet the queries: float32 [N, D]."""
        return unit_rows(rows_ND) if self._normalize else rows_ND

    def gather_labels(self, labels_M: Tensor, queries: Rows) -> GatheredLabels:
        """The embeddings of the labels of a step, with gradients.

        Args:
            labels_M: int64 [M], distinct.
            queries: The feature rows, ascending, that the queries of the step touch, and what they
                hold.
        """
        if self.text is None:
            assert self.labels is not None
            free_MD = self.labels.gather(labels_M)
            return GatheredLabels(self.normalized(free_MD), free=(self.labels, (labels_M, free_MD)))
        text_MD, words = self.text.gather(labels_M, queries)
        gathered_words = (self.text.table, words)
        if self.labels is None:
            return GatheredLabels(self.normalized(text_MD), words=gathered_words)
        assert self._is_seen_L is not None
        free_MD = self.labels.gather(labels_M)
        is_seen_M1 = self._is_seen_L[labels_M, None]
        free_MD.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient_MD: gradient_MD * is_seen_M1.to(gradient_MD.device)
        )
        free = (self.labels, (labels_M, free_MD))
        return GatheredLabels(self.normalized(text_MD + free_MD), free, gathered_words)

    @torch.no_grad()
    def label_embeddings(self) -> FloatArray:
        """All label embeddings, as published, in an array of its own: float32 [L, D]."""
        embeddings_LD = torch.empty(self.num_labels, self.encoder.width)
        for start, part_MD in self._raw_labels():
            embeddings_LD[start : start + len(part_MD)] = self.normalized(part_MD).cpu()
        embeddings: FloatArray = embeddings_LD.numpy()
        return embeddings

    @torch.no_grad()
    def lengths_of_sums(self) -> FloatArray:
        """Lengths that normalisation took from label embeddings: float32 [L].

        1 without normalisation, 0 for labels whose free rows are zeros. From them and the texts a
        warm start gets the free rows back.
        """
        assert self.labels is not None
        lengths_L = self.labels.weights_RD.any(dim=1).float().cpu()
        if self._normalize:
            for start, part_MD in self._raw_labels():
                lengths_L[start : start + len(part_MD)] *= torch.linalg.vector_norm(
                    part_MD, dim=1
                ).cpu()
        lengths: FloatArray = lengths_L.numpy()
        return lengths

    def _raw_labels(self) -> Iterator[tuple[int, Tensor]]:
        """Embeddings before normalisation, in parts, each with the label it starts at."""
        for start in range(0, self.num_labels, _CHUNK):
            stop = min(start + _CHUNK, self.num_labels)
            part_MD = None if self.text is None else self.text.embeddings(start, stop)
            if self.labels is not None:
                free_MD = self.labels.weights_RD[start:stop]
                part_MD = free_MD if part_MD is None else part_MD.add_(free_MD)
            assert part_MD is not None
            yield start, part_MD

    def frozen_encoder(self) -> QueryEncoder:
        """The encoder as it is now, without gradients; over the same memory if that is a CPU's."""
        state = {name: value.detach().cpu() for name, value in self.encoder.state().items()}
        state["table"] = self.features.weights_RD.cpu()
        return encoder_from_state(self.encoder.config.model_dump(), state)


def new_model(
    config: TrainConfig,
    features: Features,
    positives: PositiveRows,
    num_labels: int,
    *,
    label_features: SparseQueries | None = None,
) -> Model:
    """A fresh model; each free label row starts at the mean of its queries' embeddings.

    The random feature table keeps inner products of queries (Johnson-Lindenstrauss), so that
    start is already a nearest-centroid retriever; free labels without a query start at random. An
    own encoder of label texts starts with the rows of the queries' encoder, so that equal words
    match from the start.

    Args:
        config: Of the run.
        features: All training queries.
        positives: Their labels.
        num_labels: L.
        label_features: The texts of all labels; needed unless `labels.embedding` is free.

    Raises:
        InvalidInputError: If it would need more memory than this machine has.
    """
    generator = new_generator(config.seed)
    width = config.encoder.width
    num_features = feature_width(features)
    _check_memory(config, num_features, num_labels)
    table_FD = torch.randn(num_features, width, generator=generator).mul_(1 / math.sqrt(width))
    encoder = new_encoder(config.encoder, table_FD, generator)
    feature_rows, text, is_seen_L = RowTable(table_FD), None, None
    if config.labels.embedding != "free":
        assert label_features is not None
        text = _new_label_text(config, label_features, encoder, feature_rows)
        is_seen_L = torch.from_numpy(positives.counts(num_labels) > 0)
    labels = _new_label_rows(config, num_labels, generator)
    model = Model(
        encoder,
        labels,
        feature_rows,
        normalize=config.labels.normalize,
        text=text,
        is_seen_L=is_seen_L,
    )
    start_at_centroids(model, features, positives, torch.ones(num_labels, dtype=torch.bool))
    return model


def _new_label_text(
    config: TrainConfig, features: SparseQueries, encoder: QueryEncoder, table: RowTable
) -> LabelText:
    if not has_own_text_encoder(config):
        return LabelText(features, encoder, table, is_shared=True)
    own = RowTable(table.weights_RD.clone())
    own_encoder = new_encoder(config.encoder.without_network(), own.weights_RD, torch.Generator())
    return LabelText(features, own_encoder, own, is_shared=False)


def _new_label_rows(
    config: TrainConfig, num_labels: int, generator: torch.Generator
) -> RowTable | None:
    width = config.encoder.width
    match config.labels.embedding:
        case "free":
            rows_LD = torch.randn(num_labels, width, generator=generator)
            return RowTable(rows_LD.mul_(1 / math.sqrt(width)))
        case "sum":
            return RowTable(torch.zeros(num_labels, width))
        case "text":
            return None


def _check_memory(config: TrainConfig, num_features: int, num_labels: int) -> None:
    width, hidden = config.encoder.width, config.encoder.head.hidden
    # Each row has one number of its optimiser, each weight of the head two, and a gradient.
    num_rows = num_features * (2 if has_own_text_encoder(config) else 1)
    num_rows += 0 if config.labels.embedding == "text" else num_labels
    num_values = num_rows * (width + 1) + 4 * (2 * width + 1) * hidden
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
    """Set chosen free label rows to the direction of the mean embedding of their queries.

    Args:
        model: Changed in place; without free rows nothing happens. In a sum the rows are short.
        features: All training queries.
        positives: Their labels.
        chosen_L: bool [L]; other rows, and labels without a query, stay as they are.
    """
    if model.labels is None:
        return
    encoder, labels_LD = model.frozen_encoder(), model.labels.weights_RD
    # Sums of the labels that have queries alone: with millions of labels most may have none.
    has_queries_L = torch.from_numpy(positives.counts(len(labels_LD)) > 0)
    rows_N = (chosen_L & has_queries_L).nonzero()[:, 0]
    sums_ND = torch.zeros(len(rows_N), labels_LD.shape[1])
    for start, part in chunks(features, 4096):
        embeddings_BD = torch.from_numpy(encoder.encode(part))
        part_positives = positives.rows(np.arange(start, start + len(part)))
        labels_P = torch.from_numpy(part_positives.indices)
        queries_P = torch.from_numpy(row_of_each(part_positives))
        is_chosen_P = chosen_L[labels_P]
        places_P = torch.searchsorted(rows_N, labels_P[is_chosen_P])
        sums_ND.index_add_(0, places_P, embeddings_BD[queries_P[is_chosen_P]])
    length = 1.0 if model.text is None else _START_BESIDE_TEXT
    for rows, sums in zip(torch.split(rows_N, _CHUNK), torch.split(sums_ND, _CHUNK), strict=True):
        is_found = sums.any(dim=1)
        labels_LD[rows[is_found]] = F.normalize(sums[is_found], dim=1).mul_(length)
