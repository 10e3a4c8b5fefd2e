"""Ordered weighted losses over the hardest negatives (Reddi et al., AISTATS 2019).

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores, masked_mean

MarginName = Literal["hinge", "squared_hinge", "logistic"]


def margin_loss(name: MarginName, margins: Tensor) -> Tensor:
    """phi(z) of each margin z, non-increasing and convex.

    hinge max(0, 1 - z); squared_hinge max(0, 1 - z)^2; logistic log(1 + exp(-z)).
    """
    if name == "logistic":
        return F.softplus(-margins)
    hinge = (1.0 - margins).clamp_min(0.0)
    return hinge if name == "hinge" else hinge.square()


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
    def per_positive(self, scores: Scores) -> Tensor:
        negatives_PK = scores.negatives_BK.index_select(0, scores.rows_P)
        margins_PK = scores.positives_P[:, None] - negatives_PK
        losses_PK = margin_loss(self.config.margin, margins_PK)
        return masked_mean(losses_PK, scores.mask_BK[scores.rows_P])


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
    def per_positive(self, scores: Scores) -> Tensor:
        losses_BK = margin_loss(self.config.margin, -scores.negatives_BK)
        negative_B = masked_mean(losses_BK, scores.mask_BK)
        positive_P = margin_loss(self.config.margin, scores.positives_P)
        return positive_P + negative_B.index_select(0, scores.rows_P)
