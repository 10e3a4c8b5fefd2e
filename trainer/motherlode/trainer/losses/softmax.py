"""Softmax losses.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores


class DecoupledSoftmaxConfig(BaseModel):
    """Softmax of each positive against the negatives alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decoupled_softmax"] = "decoupled_softmax"


@final
class DecoupledSoftmaxLoss(Loss):
    """-log(e^{s_p} / (e^{s_p} + sum_n e^{s_n})): other positives are left out of the sum.

    Gupta et al., "Dual-encoders for extreme multi-label classification", ICLR 2024.
    """

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        partition_B = log_sum_exp(scores.negatives_BK, scores.mask_BK)
        return F.softplus(partition_B.index_select(0, scores.rows_P) - scores.positives_P)


class SoftmaxConfig(BaseModel):
    """Softmax of each positive over all labels, estimated from the draws of a sampler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["softmax"] = "softmax"


@final
class SoftmaxLoss(Loss):
    """-s_p + log Z: softmax over all labels, Z = sum_{p'} e^{s_p'} + sum_n e^{s_n} / (K q_n).

    Each positive of the query stands in Z once, as it is always there. The negatives stand for all
    the labels that are no positives: dividing each by its expected number among the K draws (masked
    ones included) makes Z an unbiased estimate, which is the log-q correction s_n - log(K q_n) of
    importance sampling (Bengio and Senécal, IEEE Transactions on Neural Networks 2008). With each
    label drawn exactly once, K q_n = 1, this is the full softmax.
    """

    needs_log_q: ClassVar[bool] = True

    @override
    def per_positive(self, scores: Scores) -> Tensor:
        _, log_q_BK = scores.log_q()
        num_draws = max(scores.negatives_BK.shape[1], 1)
        corrected_BK = scores.negatives_BK - (log_q_BK + math.log(num_draws))
        partition_B = torch.logaddexp(
            log_sum_exp(corrected_BK, scores.mask_BK), log_sum_exp_of_positives(scores)
        )
        return partition_B.index_select(0, scores.rows_P) - scores.positives_P


def log_sum_exp(values_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """The log-sum-exp of each row's unmasked values: float [B].

    The lowest number where there is none: as good as minus infinity, with finite gradients.
    """
    lowest = torch.finfo(values_BK.dtype).min
    sums_B = torch.logsumexp(values_BK.masked_fill(~mask_BK, lowest), dim=1)
    return sums_B.masked_fill(~mask_BK.any(dim=1), lowest)


def log_sum_exp_of_positives(scores: Scores) -> Tensor:
    """The log-sum-exp of each query's positives: float [B]; the lowest number without any."""
    positives_P, rows_P = scores.positives_P, scores.rows_P
    lowest = positives_P.new_full((len(scores.negatives_BK),), torch.finfo(positives_P.dtype).min)
    highest_B = lowest.scatter_reduce(0, rows_P, positives_P.detach(), "amax")
    shifted_P = positives_P - highest_B[rows_P]
    sums_B = torch.zeros_like(highest_B).index_add(0, rows_P, shifted_P.exp())
    # The highest positive adds 1, so only queries without any are below.
    return highest_B + sums_B.clamp_min(1.0).log()
