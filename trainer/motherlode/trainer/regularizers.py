"""Regularizers of label embeddings: what they should look like beside each other.

Shapes: B queries in a batch, L labels, D embedding width, N distinct labels, E pairs of labels
that stand together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array
from torch import Tensor
from typing_extensions import override

from motherlode.core.compressed_rows import entries_of
from motherlode.core.queries import FloatArray, IntArray
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.negatives import Batch


class _WeightedConfig(BaseModel):
    """What all regularizers have in their configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=10.0, gt=0, le=1e6, description="factor beside the loss")


class NoRegularizerConfig(BaseModel):
    """No regularizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none"] = "none"


class SpreadOutConfig(_WeightedConfig):
    """Pushes all labels apart."""

    kind: Literal["spread_out"] = "spread_out"


class GlasConfig(_WeightedConfig):
    """Pushes labels apart, but for those that stand together in the training data."""

    kind: Literal["glas"] = "glas"


AnyRegularizerConfig = NoRegularizerConfig | SpreadOutConfig | GlasConfig

RegularizerConfig = Annotated[AnyRegularizerConfig, Field(discriminator="kind")]


class Regularizer(ABC):
    """weight / B^2 times the sum, over all pairs of B labels, of (v_i^T v_j - u_ij)^2.

    The labels are one of each query of a batch, as in algorithm 2 of Guo et al., "Breaking the
    glass ceiling for embedding-based classifiers for large output spaces", NeurIPS 2019: a label
    may come twice.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, labels_BD: Tensor, ids_B: Tensor) -> Tensor:
        """The penalty of some labels, a scalar.

        Args:
            labels_BD: float32 [B, D], embeddings of unit length where the labels' are.
            ids_B: int64 [B], which labels they are.
        """
        products_BB = labels_BD @ labels_BD.T
        return self.weight * (products_BB - self.targets(products_BB, ids_B)).square().mean()

    @abstractmethod
    def targets(self, products_BB: Tensor, ids_B: Tensor) -> Tensor:
        """The u of each pair: float32 [B, B]."""


@final
class SpreadOut(Regularizer):
    """u = 0 for different labels: the spread-out regularizer, l_spread of the paper.

    The sum leaves out pairs of a label with itself, whose product is no sign of crowding.
    """

    @override
    def targets(self, products_BB: Tensor, ids_B: Tensor) -> Tensor:
        is_same_BB = ids_B[:, None] == ids_B
        return torch.where(is_same_BB, products_BB.detach(), 0.0)


@final
class Glas(Regularizer):
    """u = (P(y | y') + P(y' | y)) / 2, the mean conditional frequency: l_GLaS of the paper.

    The frequencies are those of all training data, not of the batch.
    """

    def __init__(self, weight: float, frequencies: ConditionalFrequencies) -> None:
        super().__init__(weight)
        self._frequencies = frequencies

    @override
    def targets(self, products_BB: Tensor, ids_B: Tensor) -> Tensor:
        targets = self._frequencies.among(ids_B.cpu().numpy())
        return torch.from_numpy(targets).to(products_BB.device)


@final
class ConditionalFrequencies:
    """How often labels stand together, kept for pairs that do: (A_ij / A_ii + A_ij / A_jj) / 2.

    A = Y^T Y counts the queries that have both labels. It has at most the sum of the squared
    numbers of labels of a query entries, of 8 bytes each; nothing has L x L.
    """

    def __init__(self, positives: PositiveRows, num_labels: int) -> None:
        ones = np.ones(len(positives.indices), np.int32)
        truth = csr_array(
            (ones, positives.indices, positives.indptr), shape=(len(positives), num_labels)
        )
        together = (truth.T @ truth).tocsr()
        together.sort_indices()
        counts_L = positives.counts(num_labels)
        self._indptr: IntArray = together.indptr.astype(np.int64)
        self._indices = together.indices
        rows_E = np.repeat(np.arange(num_labels), np.diff(self._indptr))
        shares_E = together.data / counts_L[rows_E] + together.data / counts_L[together.indices]
        self._values: FloatArray = (0.5 * shares_E).astype(np.float32)

    def among(self, ids_B: IntArray) -> FloatArray:
        """float32 [B, B]: of each pair of some labels; 1 for a label with itself.

        The cost does not depend on L, but on how many other labels stand beside these.
        """
        distinct_N, inverse_B = np.unique(ids_B, return_inverse=True)
        indptr, entries = entries_of(self._indptr, distinct_N)
        neighbours = self._indices[entries]
        columns = distinct_N.searchsorted(neighbours).clip(max=len(distinct_N) - 1)
        wanted = distinct_N[columns] == neighbours
        rows = np.repeat(np.arange(len(distinct_N)), np.diff(indptr))
        block_NN = np.zeros((len(distinct_N), len(distinct_N)), np.float32)
        block_NN[rows[wanted], columns[wanted]] = self._values[entries[wanted]]
        return block_NN[np.ix_(inverse_B, inverse_B)]


def new_regularizer(
    config: AnyRegularizerConfig, positives: PositiveRows, num_labels: int
) -> Regularizer | None:
    """The regularizer that a configuration names.

    Args:
        config: None for kind `none`.
        positives: Of all training queries.
        num_labels: L.
    """
    match config:
        case GlasConfig():
            return Glas(config.weight, ConditionalFrequencies(positives, num_labels))
        case SpreadOutConfig():
            return SpreadOut(config.weight)
        case NoRegularizerConfig():
            return None


def one_positive_each(batch: Batch, generator: torch.Generator) -> Tensor:
    """One positive of each query that has any, drawn uniformly: int64, places in positives_P."""
    counts_B = torch.bincount(batch.rows_P, minlength=len(batch.features))
    starts_B = counts_B.cumsum(0) - counts_B
    drawn_B = (torch.rand(len(counts_B), generator=generator) * counts_B).long()
    # A product of floats below the count may still round up to it.
    drawn_B = torch.minimum(drawn_B, counts_B - 1)
    return (starts_B + drawn_B)[counts_B > 0]
