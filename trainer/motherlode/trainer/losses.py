"""Losses over the scores of positives and sampled negatives.

A loss sees scores only; it knows nothing of embeddings or of how negatives were drawn.

Shapes: B queries in a batch, P positives of all its queries together, N negatives a query.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

MarginName = Literal["hinge", "squared_hinge", "logistic"]


def margin_loss(name: MarginName, margins: Tensor) -> Tensor:
    """phi(z) of each margin z, non-increasing and convex.

    hinge max(0, 1 - z); squared_hinge max(0, 1 - z)^2; logistic log(1 + exp(-z)).
    """
    if name == "logistic":
        return F.softplus(-margins)
    hinge = (1.0 - margins).clamp_min(0.0)
    return hinge if name == "hinge" else hinge.square()


class Loss(ABC):
    """The loss of a batch.

    Args of a call:
        positives_P: float [P], scores of the positives; those of query 0 first.
        rows_P: int64 [P], which query each positive belongs to, ascending.
        negatives_BN: float [B, N], scores of the negatives.
        mask_BN: bool [B, N]; False entries take no part and get no gradient.

    Returns of a call: a scalar, the mean over the B queries of the mean over each query's
    positives. A query without positives counts as zero.
    """

    def __call__(
        self, positives_P: Tensor, rows_P: Tensor, negatives_BN: Tensor, mask_BN: Tensor
    ) -> Tensor:
        """The loss of a batch; see the class."""
        num_queries = len(negatives_BN)
        losses_P = self.per_positive(positives_P, rows_P, negatives_BN, mask_BN)
        counts_B = torch.bincount(rows_P, minlength=num_queries)
        return (losses_P / counts_B[rows_P]).sum() / num_queries

    @abstractmethod
    def per_positive(
        self, positives_P: Tensor, rows_P: Tensor, negatives_BN: Tensor, mask_BN: Tensor
    ) -> Tensor:
        """The loss of each positive: float [P]."""


class PairwiseOwlConfig(BaseModel):
    """Pairwise ordered weighted loss over the negatives kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pairwise_owl"] = "pairwise_owl"
    margin: MarginName = "logistic"


@final
class PairwiseOwlLoss(Loss):
    """(1 / k) sum_j phi(f_y - f_j) over the k negatives kept.

    With the k hardest kept this is the average top-k member of the pairwise ordered weighted
    losses (Reddi et al., AISTATS 2019).
    """

    def __init__(self, config: PairwiseOwlConfig) -> None:
        self.config = config

    @override
    def per_positive(
        self, positives_P: Tensor, rows_P: Tensor, negatives_BN: Tensor, mask_BN: Tensor
    ) -> Tensor:
        margins_PN = positives_P[:, None] - negatives_BN.index_select(0, rows_P)
        return masked_mean(margin_loss(self.config.margin, margins_PN), mask_BN[rows_P])


class PointwiseOwlConfig(BaseModel):
    """Pointwise (binary) ordered weighted loss over the negatives kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pointwise_owl"] = "pointwise_owl"
    margin: MarginName = "logistic"


@final
class PointwiseOwlLoss(Loss):
    """phi(f_y) + (1 / k) sum_j phi(-f_j) over the k negatives kept (Reddi et al., AISTATS 2019)."""

    def __init__(self, config: PointwiseOwlConfig) -> None:
        self.config = config

    @override
    def per_positive(
        self, positives_P: Tensor, rows_P: Tensor, negatives_BN: Tensor, mask_BN: Tensor
    ) -> Tensor:
        negative_B = masked_mean(margin_loss(self.config.margin, -negatives_BN), mask_BN)
        return margin_loss(self.config.margin, positives_P) + negative_B.index_select(0, rows_P)


class DecoupledSoftmaxConfig(BaseModel):
    """Softmax of each positive against the negatives alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decoupled_softmax"] = "decoupled_softmax"


@final
class DecoupledSoftmaxLoss(Loss):
    """-log(e^{s_p} / (e^{s_p} + sum_n e^{s_n})): other positives are left out of the sum.

    Gupta et al., "Dual-encoders for extreme multi-label classification", ICLR 2024.
    """

    def __init__(self, config: DecoupledSoftmaxConfig) -> None:
        self.config = config

    @override
    def per_positive(
        self, positives_P: Tensor, rows_P: Tensor, negatives_BN: Tensor, mask_BN: Tensor
    ) -> Tensor:
        lowest = torch.finfo(negatives_BN.dtype).min
        partition_B = torch.logsumexp(negatives_BN.masked_fill(~mask_BN, lowest), dim=1)
        # A query without any negative has nothing to be told apart from: its loss is zero.
        partition_B = partition_B.masked_fill(~mask_BN.any(dim=1), lowest)
        return F.softplus(partition_B.index_select(0, rows_P) - positives_P)


LossConfig = Annotated[
    PairwiseOwlConfig | PointwiseOwlConfig | DecoupledSoftmaxConfig, Field(discriminator="kind")
]


def new_loss(config: PairwiseOwlConfig | PointwiseOwlConfig | DecoupledSoftmaxConfig) -> Loss:
    """The loss that a configuration names."""
    if isinstance(config, PairwiseOwlConfig):
        return PairwiseOwlLoss(config)
    if isinstance(config, PointwiseOwlConfig):
        return PointwiseOwlLoss(config)
    return DecoupledSoftmaxLoss(config)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension of the entries where mask is True; zero where there is none."""
    total = values.masked_fill(~mask, 0.0).sum(dim=-1)
    return total / mask.sum(dim=-1).clamp_min(1)
