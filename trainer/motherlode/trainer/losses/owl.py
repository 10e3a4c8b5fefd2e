"""Ordered weighted losses over the hardest negatives (Reddi et al., AISTATS 2019).

theta, the weights by rank, is that of `rank_weights`: by default 1 / k for each of the k negatives
kept.

Shapes: B queries in a batch, P positives of all its queries together, R ranks that have a weight.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores
from motherlode.trainer.losses.margins import MarginName, margin_loss
from motherlode.trainer.losses.pairwise import pairwise_sums
from motherlode.trainer.losses.rank_weights import (
    AllWeightsConfig,
    RankWeights,
    RankWeightsConfig,
)


class PairwiseOwlConfig(BaseModel):
    """Pairwise ordered weighted loss over the negatives kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pairwise_owl"] = "pairwise_owl"
    margin: MarginName = "logistic"
    weights: RankWeightsConfig = AllWeightsConfig()


@final
class PairwiseOwlLoss(Loss):
    """sum_i theta_i phi(f_y - s_[i]), s_[i] the i-th highest score of the negatives."""

    def __init__(self, margin: MarginName, weights: RankWeights) -> None:
        self._margin = margin
        self._weights = weights

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        negatives_BR, mask_BR = self._weights.rank(scores.negatives_BK, scores.mask_BK)
        weights_BR = self._weights.of(negatives_BR, mask_BR)
        return pairwise_sums(
            self._margin, scores.positives_P, scores.rows_P, negatives_BR, weights_BR
        )


class PointwiseOwlConfig(BaseModel):
    """Pointwise (binary) ordered weighted loss over the negatives kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pointwise_owl"] = "pointwise_owl"
    margin: MarginName = "logistic"
    weights: RankWeightsConfig = AllWeightsConfig()


@final
class PointwiseOwlLoss(Loss):
    """phi(f_y) + sum_i theta_i phi(-s_[i]), s_[i] the i-th highest score of the negatives."""

    def __init__(self, margin: MarginName, weights: RankWeights) -> None:
        self._margin = margin
        self._weights = weights

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        negatives_BR, mask_BR = self._weights.rank(scores.negatives_BK, scores.mask_BK)
        negative_B = self._weights.total(margin_loss(self._margin, -negatives_BR), mask_BR)
        positive_P = margin_loss(self._margin, scores.positives_P)
        return positive_P + negative_B.index_select(0, scores.rows_P)


class CosineContrastiveConfig(BaseModel):
    """Pointwise ordered weighted loss of cosines: needs unit vectors and `labels.scale = 1`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cosine_contrastive"] = "cosine_contrastive"
    nu: float = Field(default=1.0, gt=0, le=2, description="cosines above 1 - nu count")
    weights: RankWeightsConfig = AllWeightsConfig()


@final
class CosineContrastiveLoss(Loss):
    """(1 - s_y)^2 + sum_i theta_i max(0, nu - 1 + s_[i])^2, s the cosine of query and label.

    Yu, Rawat, Menon and Kumar, "Federated learning with only positive labels" (ICML 2020), with
    theta = (1, ..., 1). It is meant for unit vectors, unscaled: the aim is a cosine of 1 for
    positives and of at most 1 - nu for negatives.
    """

    def __init__(self, nu: float, weights: RankWeights) -> None:
        self._nu = nu
        self._weights = weights

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        negatives_BR, mask_BR = self._weights.rank(scores.negatives_BK, scores.mask_BK)
        losses_BR = (negatives_BR + (self._nu - 1.0)).clamp_min(0.0).square()
        negative_B = self._weights.total(losses_BR, mask_BR)
        positive_P = (1.0 - scores.positives_P).square()
        return positive_P + negative_B.index_select(0, scores.rows_P)
