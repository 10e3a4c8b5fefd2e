"""Softmax losses.

Shapes: B queries in a batch, P positives of all its queries together, K negatives a query.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override

from motherlode.trainer.losses.loss import Loss, Scores
from motherlode.trainer.masks import lowest_where_masked

_BLOCK_ROWS = 32


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

    The lowest number where there is none: as good as minus infinity, with finite gradients. There
    are no second derivatives.
    """
    sums_B: Tensor = _LogSumExp.apply(values_BK, mask_BK)  # type: ignore[no-untyped-call]
    return sums_B


class _LogSumExp(Function):
    """log sum e^v, whose gradient is the softmax: what forward computes anyway is kept for it."""

    @staticmethod
    @override
    def forward(ctx: Any, values_BK: Tensor, mask_BK: Tensor) -> Tensor:
        lowest = torch.finfo(values_BK.dtype).min
        shares_BK = lowest_where_masked(values_BK, mask_BK)
        ctx.save_for_backward(shares_BK)
        if values_BK.shape[1] == 0:
            return values_BK.new_full((len(values_BK),), lowest)
        highest_B1, sums_B1 = values_BK.new_empty(2, len(values_BK), 1).unbind()
        # A few rows at a time: what is computed of them stays in the cache of a CPU's core.
        size = len(values_BK) if values_BK.is_cuda else _BLOCK_ROWS
        for start in range(0, len(values_BK), size):
            block = slice(start, start + size)
            shares = shares_BK[block]
            torch.amax(shares, dim=1, keepdim=True, out=highest_B1[block])
            shares.sub_(highest_B1[block]).exp_()
            torch.sum(shares, dim=1, keepdim=True, out=sums_B1[block])
            shares.div_(sums_B1[block])
        # Rows without any value: no share of anything, rather than equal shares of the lowest.
        is_empty_B = highest_B1[:, 0] <= lowest
        shares_BK[is_empty_B] = 0.0
        return (highest_B1 + sums_B1.log_())[:, 0].masked_fill_(is_empty_B, lowest)

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradients_B: Tensor) -> tuple[Tensor, None]:
        (shares_BK,) = ctx.saved_tensors
        return shares_BK * gradients_B[:, None], None


def log_sum_exp_of_positives(scores: Scores) -> Tensor:
    """The log-sum-exp of each query's positives: float [B]; the lowest number without any."""
    positives_P, rows_P = scores.positives_P, scores.rows_P
    lowest = positives_P.new_full((len(scores.negatives_BK),), torch.finfo(positives_P.dtype).min)
    highest_B = lowest.scatter_reduce(0, rows_P, positives_P.detach(), "amax")
    shifted_P = positives_P - highest_B[rows_P]
    sums_B = torch.zeros_like(highest_B).index_add(0, rows_P, shifted_P.exp())
    # The highest positive adds 1, so only queries without any are below.
    return highest_B + sums_B.clamp_min(1.0).log()
