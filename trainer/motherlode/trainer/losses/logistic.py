"""Logistic losses over every negative alike: baselines.

They sum over the negatives of a query, as if these were all labels; the ordered weighted losses
with a logistic margin take the mean.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores, masked_sum
from motherlode.trainer.losses.pairwise import pairwise_sums


class BinaryCrossEntropyConfig(BaseModel):
    """A yes or no for each label by itself: one-vs-all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"


@final
class BinaryCrossEntropyLoss(Loss):
    """-log sigmoid(s_p) - sum_n log sigmoid(-s_n)."""

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        negative_B = masked_sum(F.softplus(scores.negatives_BK), scores.mask_BK)
        return F.softplus(-scores.positives_P) + negative_B.index_select(0, scores.rows_P)


class OneVsEachConfig(BaseModel):
    """Each positive against each negative by itself: a bound on the softmax."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["one_vs_each"] = "one_vs_each"


@final
class OneVsEachLoss(Loss):
    """-sum_n log sigmoid(s_p - s_n), never below the decoupled softmax (Titsias, NeurIPS 2016)."""

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        negatives_BK = scores.negatives_BK
        weights_BK = scores.mask_BK.to(negatives_BK.dtype)
        return pairwise_sums(
            "logistic", scores.positives_P, scores.rows_P, negatives_BK, weights_BK
        )
